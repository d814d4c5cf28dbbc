"""Tensors in a file: safetensors, which hold no code, with a description and a checksum in the header."""
import hashlib
import json
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save

from tagging.errors import TaggingError
from tagging.files import atomic


def write_weights(path: Path, kind: str, tensors: dict[str, torch.Tensor], about: dict) -> None:
    """
    Args:
        kind: what the file is and the version of its layout; `read_weights` asks for the same.
        about: anything that JSON takes.
    Raises:
        TaggingError: the file could not be written.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    about = json.dumps(about)
    content = save(tensors, {"kind": kind, "about": about, "checksum": checksum(tensors, about)})
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def read_weights(path: Path, kind: str, remedy: str) -> tuple[dict[str, torch.Tensor], dict]:
    """
    Returns:
        the tensors on the CPU, and what the file says of them.
    Raises:
        TaggingError: the file is missing, damaged or of another kind; the message ends on `remedy`.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except FileNotFoundError as error:
        raise TaggingError(f"{path} is missing. {remedy}") from error
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise TaggingError(f"{path} is damaged: {error}. {remedy}") from error
    if header.get("kind") != kind:
        raise TaggingError(f"{path} is of the kind '{header.get('kind')}' where '{kind}' is read. {remedy}")
    if header.get("checksum") != checksum(tensors, header.get("about", "")):
        raise TaggingError(f"{path} is damaged: its checksum is wrong. {remedy}")
    try:
        about = json.loads(header["about"])
    except (KeyError, ValueError, RecursionError) as error:
        raise TaggingError(f"{path} is damaged: its description cannot be read ({error!r}). {remedy}") from error
    if not isinstance(about, dict):
        raise TaggingError(f"{path} is damaged: its description is no JSON object. {remedy}")
    return tensors, about


def checksum(tensors: dict[str, torch.Tensor], about: str) -> str:
    """Over names, shapes, types and bytes of the tensors, and over the description."""
    digest = hashlib.sha256(about.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
