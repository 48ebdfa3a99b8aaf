"""Reading a weight file: tensors by name and metadata, or a sentence that says what is wrong with it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

#: Keys under which training programs wrap the weights.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_DDP_PREFIX = "module."


class Weights(NamedTuple):
    """tensors by name, without a DDP prefix; metadata of a safetensors file; what to call it."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    name: str


def read_weights(source: str | Path | Mapping[str, Tensor]) -> Weights:
    """Weights of a .safetensors file, a torch file (.pth, .pt, .bin), or a state dict as it is.

    Torch files are read with `weights_only=True`: no code of theirs is run.
    Raises ValueError, in a sentence, for a file that is missing, cut short, or holds no weights.
    """
    if isinstance(source, Mapping):
        return Weights(_tensors(source, "The state dict"), {}, "The state dict")
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    if path.suffix == ".safetensors":
        content, metadata = _read_safetensors(path)
    else:
        content, metadata = _read_torch(path), {}
    return Weights(_tensors(content, path.name), metadata, path.name)


def _broken(path: Path, error: Exception) -> ValueError:
    size = path.stat().st_size
    return ValueError(
        f"{path.name} cannot be read: it is cut short or damaged ({size:,} bytes). Download it again. "
        f"({type(error).__name__})"
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _broken(path, error) from error


def _read_torch(path: Path) -> Mapping:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "unsupported global" in str(error).lower() or "unsupported class" in str(error).lower():
            raise ValueError(
                f"{path.name} holds more than weights (Python objects), and those are not opened for safety. "
                "Save its state_dict alone."
            ) from error
        raise _broken(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _broken(path, error) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path.name} holds no weights by name but a {type(content).__name__}.")
    return content


def _tensors(content: Mapping, name: str) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{name} holds no tensors.")
    if all(key.startswith(_DDP_PREFIX) for key in tensors):
        tensors = {key.removeprefix(_DDP_PREFIX): value for key, value in tensors.items()}
    return tensors
