"""Tag sound files with an exported model, with numpy, soundfile and onnxruntime only.

    python -m tagging_lite MODEL.onnx PATH...

The package imports nothing from the rest of the repository. `tagging` imports it.
"""
