"""Weights from a file into a network, with sentences for everything that can be wrong with a file."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

#: Keys under which training programs wrap the weights.
_WRAPPERS = ("model_state_dict", "state_dict", "model")
_DDP_PREFIX = "module."
_NAMES_SHOWN = 3


class Weights(NamedTuple):
    """tensors by name, without a DDP prefix; metadata of a safetensors file; what to call it."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    name: str


def read_weights(source: str | Path | Mapping[str, Any]) -> Weights:
    """Weights of a .safetensors file, of a `torch.save`d checkpoint, or of a state dict as it is; on the CPU.

    Checkpoints are read with `weights_only=True`: nothing but tensors is ever unpickled.
    Raises FileNotFoundError when there is no such file, ValueError for a file that is cut short, damaged
    or holds no weights.
    """
    if isinstance(source, Mapping):
        return Weights(_tensors(source, "This checkpoint"), {}, "This checkpoint")
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    read = read_part(path, "") if path.suffix == ".safetensors" else Weights(_read_torch(path), {}, path.name)
    return read._replace(tensors=_tensors(read.tensors, path.name))


def damaged(path: Path) -> ValueError:
    """The error for a file that cannot be read: half of it, or a web page under its name."""
    size = path.stat().st_size
    text = f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size:,} bytes"
    return ValueError(
        f"{path.name} is incomplete or damaged ({text}): probably the download stopped early, or a web page "
        "was saved instead of the file. Delete it and download it again."
    )


def read_metadata(path: Path) -> dict[str, str]:
    """The strings in the header of a .safetensors file; no tensor is read. Raises ValueError as `damaged`."""
    with _opened(path) as file:
        return file.metadata() or {}


def read_part(path: Path, prefix: str) -> Weights:
    """Only the tensors of a .safetensors file whose names start with `prefix`, named without it.

    Raises ValueError as `damaged`.
    """
    with _opened(path) as file:
        names = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118
        tensors = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
        return Weights(tensors, file.metadata() or {}, path.name)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as reason:
        raise damaged(path) from reason


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as reason:
        with path.open("rb") as file:
            packed = file.read(2) == b"PK"
        if packed:
            raise ValueError(
                f"{path.name} holds more than weights (program objects), so it was not opened. Use the "
                "published file or a .safetensors copy."
            ) from reason
        raise damaged(path) from reason
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as reason:
        raise damaged(path) from reason


def _tensors(content: object, name: str) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                content = content[wrapper]
                break
    if not isinstance(content, Mapping):
        raise ValueError(f"{name} is not a list of named weights: it is not a network's checkpoint.")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{name} holds no tensors.")
    if all(key.startswith(_DDP_PREFIX) for key in tensors):
        tensors = {key.removeprefix(_DDP_PREFIX): value for key, value in tensors.items()}
    return tensors


def without_prefix(weights: Mapping[str, Tensor], landmark: str) -> dict[str, Tensor]:
    """The same weights with the prefix cut off that stands before `landmark`, if any.

    A name without the prefix stays as it is. Raises KeyError when no name ends with `landmark`.
    """
    whole = next((name for name in weights if name == landmark or name.endswith("." + landmark)), None)
    if whole is None:
        raise KeyError(landmark)
    prefix = whole.removesuffix(landmark)
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}


def load_strict(network: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Put the weights into a network built on the meta device; they are used as they are, not copied.

    weights: exactly the network's names and shapes. Mixed precisions become float32.
    what: names the weights and the network they were taken for, to start the sentence with.
    Raises ValueError that counts and names what is missing, left over and of another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    complaints = []
    for names, problem in (
        ([n for n in wanted if n not in given], "missing"),
        ([n for n in given if n not in wanted], "not expected"),
    ):
        if names:
            complaints.append(f"{_counted(len(names))} {problem}: {_listed(names)}")
    misshapen = [n for n in wanted if n in given and wanted[n] != given[n]]
    if misshapen:
        shapes = [f"{n} should be {wanted[n]} and is {given[n]}" for n in misshapen]
        complaints.append(f"{_counted(len(shapes))} of another shape: {_listed(shapes)}")
    if complaints:
        raise ValueError(
            f"{what} does not fit: expected {len(wanted)} tensors and found {len(given)}. "
            + " ".join(f"{c[0].upper()}{c[1:]}." for c in complaints)
        )
    weights = dict(weights)
    if len({tensor.dtype for tensor in weights.values()}) > 1:
        weights = {name: tensor.float() for name, tensor in weights.items()}
    network.load_state_dict(weights, strict=True, assign=True)


def _counted(count: int) -> str:
    return f"{count} tensor is" if count == 1 else f"{count} tensors are"


def _listed(names: list[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
