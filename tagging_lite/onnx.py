"""An exported model on onnxruntime."""
import json
from pathlib import Path

import numpy as np
import onnxruntime

from tagging_lite.audio import RATES
from tagging_lite.errors import TaggingError
from tagging_lite.tagger import Hearing, Tagger

KIND = "audio-tagging onnx 2"       # raise the number when older code would read a newer file wrongly
REMEDY = "Write it with `python -m tools.export --run NAME`."


def load_onnx(path: Path, threads: int = 0) -> Tagger:
    """Load a model that `tools.export` wrote.

    Args:
        threads: of one inference; 0 leaves it to onnxruntime.
    Raises:
        TaggingError: the file is missing, damaged or of another kind.
    """
    session = open_session(path, threads)
    try:
        about = json.loads(session.get_modelmeta().custom_metadata_map["hearing"])
        hearing = Hearing(tuple(map(str, about["classes"])), int(about["sample_rate"]), int(about["window"]),
                          float(about["overlap"]), float(about["trim_db"]), str(about["pooling"]))
        outputs = {output.name: output.shape for output in session.get_outputs()}
        if not (RATES[0] <= hearing.sample_rate <= RATES[1] and hearing.window > 0 and 0 <= hearing.overlap < 1
                and hearing.trim_db >= 0 and hearing.pooling in ("mean", "maximum")
                and outputs["logits"][-1] == len(hearing.classes)):
            raise ValueError(hearing)
    except (LookupError, TypeError, ValueError) as error:
        raise TaggingError(f"{path} does not say rightly what it hears ({error!r}). {REMEDY}") from error

    def logits(waves: np.ndarray) -> np.ndarray:
        """(windows, samples) int16 -> (windows, models, classes)"""
        return session.run(["logits"], {"waves": waves.astype(np.float32) / 32768})[0]

    return Tagger(hearing, logits)


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """
    Raises:
        TaggingError: the file is missing, damaged or of another kind.
    """
    if not Path(path).is_file():
        raise TaggingError(f"{path} is missing. {REMEDY}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3       # 3: errors only
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:      # onnxruntime has an exception type for each of its codes, and hides them
        raise TaggingError(f"{path} is damaged, or no ONNX model: {error}. {REMEDY}") from error
    kind = session.get_modelmeta().custom_metadata_map.get("kind")
    if kind != KIND:
        raise TaggingError(f"{path} is of the kind '{kind}' where '{KIND}' is read. {REMEDY}")
    return session
