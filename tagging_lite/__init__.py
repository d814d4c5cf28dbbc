"""Tag sound files with numpy, soundfile and an exported model on onnxruntime; `tagging` builds on this package.

    python -m tagging_lite MODEL.onnx PATH...

It needs nothing from outside its folder.
"""
