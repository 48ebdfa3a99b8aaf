"""Weights from a file into a network, with sentences for everything that can be wrong with a file."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

#: Where training scripts put the weights inside a checkpoint.
_INSIDE = ("model_state_dict", "state_dict")
_NAMES_SHOWN = 3


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or of a `torch.save`d checkpoint, on the CPU.

    Nothing but tensors is ever unpickled.
    Raises FileNotFoundError when there is no such file, ValueError for a file that is cut short, damaged
    or not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as reason:
            raise _damaged(path) from reason
    try:
        return _tensors_in(torch.load(path, map_location="cpu", weights_only=True), path.name)
    except pickle.UnpicklingError as reason:
        with path.open("rb") as file:
            packed = file.read(2) == b"PK"
        if packed:
            raise ValueError(
                f"{path.name} holds more than weights (program objects), so it was not opened. Use the "
                "published file or a .safetensors copy."
            ) from reason
        raise _damaged(path) from reason
    except (RuntimeError, EOFError, OSError) as reason:
        raise _damaged(path) from reason


def _damaged(path: Path) -> ValueError:
    size = path.stat().st_size
    shown = f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size:,} bytes"
    return ValueError(
        f"{path.name} is incomplete or damaged ({shown}): probably the download stopped early, or a web page "
        "was saved instead of the file. Delete it and download it again."
    )


def _tensors_in(content: object, name: str) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for key in _INSIDE:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{name} is not a list of named weights: it is not a network's checkpoint.")
    return dict(content)


def without_prefix(weights: Mapping[str, Tensor], landmark: str) -> dict[str, Tensor]:
    """The same weights with the prefix cut off that stands before `landmark`, if any.

    A name without the prefix stays as it is. Raises KeyError when no name ends with `landmark`.
    """
    whole = next((name for name in weights if name == landmark or name.endswith("." + landmark)), None)
    if whole is None:
        raise KeyError(landmark)
    prefix = whole.removesuffix(landmark)
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}


def fill(network: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Put the weights into a network built on the meta device; they are used as they are, not copied.

    weights: exactly the network's names and shapes. Mixed precisions become float32.
    what: names the weights and the network they were taken for, to start the sentence with.
    Raises ValueError that counts and names what is missing, left over and of another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    complaints = []
    for names, problem in (
        ([n for n in wanted if n not in found], "missing"),
        ([n for n in found if n not in wanted], "not expected"),
    ):
        if names:
            complaints.append(f"{_counted(len(names))} {problem}: {_listed(names)}")
    misshapen = [n for n in wanted if n in found and wanted[n] != found[n]]
    if misshapen:
        shapes = [f"{n} should be {wanted[n]} and is {found[n]}" for n in misshapen]
        complaints.append(f"{_counted(len(shapes))} of another shape: {_listed(shapes)}")
    if complaints:
        raise ValueError(
            f"{what} does not fit: expected {len(wanted)} tensors and found {len(found)}. "
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
