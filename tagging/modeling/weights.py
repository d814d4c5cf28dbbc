"""Weights files: safetensors, which cannot run code, with a description and a checksum in the header."""
import hashlib
import json
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save

from tagging.errors import TaggingError
from tagging.utils.files import atomic


def write_weights(path: Path, kind: str, tensors: dict[str, torch.Tensor], about: dict) -> None:
    """Write tensors and their description, atomically.

    Args:
        kind: what the file is, with the version of its layout. `read_weights` requires the same kind.
        about: the description, anything that JSON can hold.
    Raises:
        TaggingError: the file cannot be written.
    """
    on_host = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(about)
    content = save(on_host, {"kind": kind, "about": text, "checksum": checksum(on_host, text)})
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def read_weights(path: Path, kind: str, remedy: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Read a file of `write_weights`.

    Returns:
        the tensors on the CPU, and their description.
    Raises:
        TaggingError: the file is missing, damaged or of another kind. The message ends with `remedy`.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, the file is no dict
    except FileNotFoundError as error:
        raise TaggingError(f"{path} is missing. {remedy}") from error
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise TaggingError(f"{path} is damaged: {error}. {remedy}") from error
    if header.get("kind") != kind:
        raise TaggingError(f"{path} is of kind '{header.get('kind')}', and '{kind}' is expected. {remedy}")
    if header.get("checksum") != checksum(tensors, header.get("about", "")):
        raise TaggingError(f"{path} is damaged: its checksum is wrong. {remedy}")
    try:
        about = json.loads(header["about"])
    except (KeyError, ValueError, RecursionError) as error:
        raise TaggingError(f"{path} is damaged: its description cannot be read ({error!r}). {remedy}") from error
    if not isinstance(about, dict):
        raise TaggingError(f"{path} is damaged: its description is not a JSON object. {remedy}")
    return tensors, about


def checksum(tensors: dict[str, torch.Tensor], about: str) -> str:
    """Return a SHA-256 over names, shapes, types and bytes of the tensors, and over the description."""
    digest = hashlib.sha256(about.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
