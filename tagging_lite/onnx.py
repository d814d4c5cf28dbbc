"""An exported model, run with onnxruntime."""
import json
from pathlib import Path

import numpy as np
import onnxruntime

from tagging_lite.cores import available_cores
from tagging_lite.decoding.sound import RATES
from tagging_lite.errors import TaggingError
from tagging_lite.tagger import ModelInfo, Tagger

KIND = "audio-tagging onnx 3"       # increase the number if older code would misread a newer file
INFO_KEYS = {KIND: "model_info", "audio-tagging onnx 2": "hearing",      # the metadata key of the ModelInfo by kind
             "audio-tagging onnx 1": "hearing"}
REMEDY = "Write it with `python -m tools.export --run NAME`."


def load_onnx(path: Path, threads: int = 0) -> Tagger:
    """Load a model that `tools.export` wrote.

    Args:
        threads: number of threads for one inference. 0 takes all cores that this process may use.
    Raises:
        TaggingError: the file is missing, damaged or of another kind.
    """
    session = open_session(path, threads)
    try:
        metadata = session.get_modelmeta().custom_metadata_map
        values = {"pooling": "mean"} | json.loads(metadata[INFO_KEYS[metadata["kind"]]])       # kind 1 has none
        info = ModelInfo(tuple(map(str, values["classes"])), int(values["sample_rate"]), int(values["window"]),
                         float(values["overlap"]), float(values["trim_db"]), str(values["pooling"]))
        outputs = {output.name: output.shape for output in session.get_outputs()}
        if not (RATES[0] <= info.sample_rate <= RATES[1] and info.window > 0 and 0 <= info.overlap < 1
                and info.trim_db >= 0 and info.pooling in ("mean", "maximum")
                and outputs["logits"][-1] == len(info.classes)):
            raise ValueError(info)
    except (LookupError, TypeError, ValueError) as error:
        raise TaggingError(f"{path} has invalid metadata ({error!r}). {REMEDY}") from error

    def logits(waves: np.ndarray) -> np.ndarray:
        """(windows, samples) int16 -> (windows, models, classes)."""
        return session.run(["logits"], {"waves": waves.astype(np.float32) / 32768})[0]

    return Tagger(info, logits)


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """Open an exported model on the CPU, and check its kind.

    Args:
        threads: number of threads for one inference. 0 takes all cores that this process may use.
    Raises:
        TaggingError: the file is missing, damaged or of another kind.
    """
    if not Path(path).is_file():
        raise TaggingError(f"{path} is missing. {REMEDY}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3      # errors only
    options.intra_op_num_threads = threads or available_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")        # as `calm_threads` for OpenMP
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:      # onnxruntime has one exception type for each of its codes, and does not export them
        raise TaggingError(f"{path} is damaged, or is not an ONNX model: {error}. {REMEDY}") from error
    kind = session.get_modelmeta().custom_metadata_map.get("kind")
    if kind not in INFO_KEYS:
        raise TaggingError(f"{path} is of kind '{kind}', but '{KIND}' is expected. {REMEDY}")
    return session
