"""An exported model on onnxruntime."""
import json
from pathlib import Path

import numpy as np
import onnxruntime

from tagging_lite.errors import TaggingError
from tagging_lite.tagger import Hearing, Tagger

KIND = "audio-tagging onnx 1"       # raise the number when older code would read a newer file wrongly


def load_onnx(path: Path, threads: int = 0) -> Tagger:
    """Load a model that `tools.export` wrote.

    Args:
        threads: of one inference; 0 leaves it to onnxruntime.
    Raises:
        TaggingError: the file is missing, damaged or of another kind.
    """
    session = open_session(path, threads)
    settings = json.loads(session.get_modelmeta().custom_metadata_map["hearing"])

    def logits(waves: np.ndarray) -> np.ndarray:
        """(windows, samples) int16 -> (windows, models, classes)"""
        return session.run(["logits"], {"waves": waves.astype(np.float32) / 32768})[0]

    return Tagger(Hearing(**settings | {"classes": tuple(settings["classes"])}), logits)


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """
    Raises:
        TaggingError: the file is missing, damaged or of another kind.
    """
    remedy = "Write it with `python -m tools.export --run NAME`."
    if not Path(path).is_file():
        raise TaggingError(f"{path} is missing. {remedy}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3       # 3: errors only
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:      # onnxruntime has an exception type for each of its codes, and hides them
        raise TaggingError(f"{path} is damaged, or no ONNX model: {error}. {remedy}") from error
    kind = session.get_modelmeta().custom_metadata_map.get("kind")
    if kind != KIND:
        raise TaggingError(f"{path} is of the kind '{kind}' where '{KIND}' is read. {remedy}")
    return session
