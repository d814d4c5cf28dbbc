"""An exported model, run with onnxruntime."""
import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime

from tagging_lite.cores import available_cores
from tagging_lite.decoding.sound import RATES
from tagging_lite.errors import TaggingError
from tagging_lite.tagger import ModelInfo, Tagger

KIND = "audio-tagging onnx 4"       # increase the number if older code would misread a newer file
INFO_KEYS = {KIND: "model_info", "audio-tagging onnx 3": "model_info",      # the metadata key of the ModelInfo by kind
             "audio-tagging onnx 2": "hearing", "audio-tagging onnx 1": "hearing"}
CHECKSUM_KEY = "models"             # metadata key of `Tagger.checksum`, since kind 4
REMEDY = "Write it with `python -m tools.export --run NAME`."


def load_onnx(path: Path, threads: int = 0) -> Tagger:
    """Load a model that `tools.export` wrote.

    Args:
        threads: number of threads for one inference. 0 takes all cores that this process may use.
    Raises:
        TaggingError: the file is missing, damaged or of another kind.
    """
    session = open_session(path, threads)
    metadata = session.get_modelmeta().custom_metadata_map
    outputs = {output.name: output.shape for output in session.get_outputs()}
    try:
        info = parse_info(metadata[INFO_KEYS[metadata["kind"]]])
        if outputs["logits"][-1] != len(info.classes):
            raise ValueError(f"{len(info.classes)} classes, but {outputs['logits'][-1]} logits")
    except (LookupError, TypeError, ValueError) as error:
        raise TaggingError(f"{path} has invalid metadata ({error!r}). {REMEDY}") from error
    # Since kind 4 the model trims clips. These windows are to stay as they are, which a negative number requests.
    options = {"trim_db": np.array(-1, np.float32)} if session.get_overridable_initializers() else {}

    def run(waves: np.ndarray, *names: str) -> list[np.ndarray]:
        return session.run(list(names), {"waves": waves.astype(np.float32) / 32768} | options)

    def logits(waves: np.ndarray) -> np.ndarray:
        """(windows, samples) int16 -> (windows, models, classes)."""
        return run(waves, "logits")[0]

    def features(waves: np.ndarray) -> np.ndarray:
        """(windows, samples) int16 -> (windows, models, classes + features)."""
        return np.concatenate(run(waves, "logits", "features"), -1)

    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Tagger(info, logits, features if "features" in outputs else None,
                  checksum=metadata.get(CHECKSUM_KEY, ""), file_sha256=digest)


def format_info(info: ModelInfo) -> str:
    """Return a ModelInfo as JSON, which has no infinite numbers: the threshold of a class without tags is null."""
    return json.dumps(asdict(info) | {"thresholds": [value if math.isfinite(value) else None
                                                     for value in info.thresholds]})


def parse_info(text: str) -> ModelInfo:
    """Read what `format_info`, or an earlier version, wrote.

    Raises:
        LookupError, TypeError, ValueError: it is invalid.
    """
    values = {"pooling": "mean", "thresholds": [], "precisions": []} | json.loads(text)     # kind 1 has no pooling
    info = ModelInfo(
        tuple(map(str, values["classes"])), int(values["sample_rate"]), int(values["window"]), float(values["overlap"]),
        float(values["trim_db"]), str(values["pooling"]),
        tuple(math.inf if value is None else float(value) for value in values["thresholds"]),
        tuple(tuple((float(precision), float(threshold)) for precision, threshold in pairs)
              for pairs in values["precisions"]))
    if not (RATES[0] <= info.sample_rate <= RATES[1] and info.window > 0 and 0 <= info.overlap < 1 and info.trim_db >= 0
            and info.pooling in ("mean", "maximum")
            and {len(info.thresholds), len(info.precisions)} <= {0, len(info.classes)}):
        raise ValueError(info)
    return info


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """Open an exported model on the CPU, and check its kind.

    Args:
        threads: number of threads for one inference. 0 takes all cores that this process may use.
    Raises:
        TaggingError: the file is missing, damaged or of another kind.
    """
    if not Path(path).is_file():
        raise TaggingError(f"{path} is {'no file' if Path(path).exists() else 'missing'}. {REMEDY}")
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
