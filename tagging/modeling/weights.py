"""Weights files: safetensors, which cannot run code, with a description and a checksum in the header."""
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import safetensors
import torch
from safetensors.torch import save

from tagging.errors import TaggingError
from tagging.utils.files import atomic


class Savable(Protocol):
    """A model with a weights file."""
    def save(self, path: Path) -> None:
        """Write the weights file."""


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


def read_weights(path: Path, kinds: Sequence[str], remedy: str) -> tuple[dict[str, torch.Tensor], dict, str]:
    """Read a file of `write_weights`, or of an earlier version.

    Args:
        kinds: the kinds that the caller can read.
    Returns:
        the tensors on the CPU, their description, and the kind of the file.
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
    kind = header.get("kind", header.get("format", ""))         # "format" before 1d1709a
    if kind not in kinds:
        raise TaggingError(f"{path} is of kind '{kind}', and '{kinds[-1]}' is expected. {remedy}")
    found = checksum(tensors, header.get("about", "")) if "kind" in header else first_checksum(tensors)
    if header.get("checksum") != found:
        raise TaggingError(f"{path} is damaged: its checksum is wrong. {remedy}")
    try:
        about = json.loads(header["about"])
    except (KeyError, ValueError, RecursionError) as error:
        raise TaggingError(f"{path} is damaged: its description cannot be read ({error!r}). {remedy}") from error
    if not isinstance(about, dict):
        raise TaggingError(f"{path} is damaged: its description is not a JSON object. {remedy}")
    return tensors, about, kind


def checksum(tensors: dict[str, torch.Tensor], about: str) -> str:
    """Return a SHA-256 over names, shapes, types and bytes of the tensors, and over the description."""
    digest = hashlib.sha256(about.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        if value.numel():       # torch has no bytes of an empty tensor
            digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def first_checksum(tensors: dict[str, torch.Tensor]) -> str:
    """Return the checksum of the kind "audio-tagging 1", over names and bytes of the tensors."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
