"""Tag sound files with an exported model, with numpy, soundfile, soxr and onnxruntime only.

    python -m tagging_lite MODEL.onnx PATH...

The package imports nothing from the rest of the repository. `tagging` imports it.
"""
import logging
import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")     # onnxruntime would write an identifier into the home folder
# matplotlib warns if it cannot write to the home folder. It then works in a temporary folder, so nothing is to be done.
logging.getLogger("matplotlib").addFilter(lambda record: not str(record.msg).startswith(
    ("mkdir -p failed", "%s is not a writable directory", "Matplotlib created a temporary cache directory")))
