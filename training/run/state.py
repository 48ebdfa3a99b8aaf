"""The tensors of a run's state by key, and their way into and out of a folder.

    models/MODEL/NAME                       weights and buffers, by diffusers' or the module's own names
    optimisers/OPTIMISER/MODEL/NAME/ENTRY   what the optimiser keeps for that parameter, such as `exp_avg`

Optimiser state is named after the parameter and not after its place in a list, and read for the parameters
that had some: one that never got a gradient has none before and after. Tensors may be sharded; the folder
(torch.distributed.checkpoint) is read into any other sharding. Its index is a pickle.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from ..data.packed import listed

Model = nn.Module | Mapping[str, Tensor]
Models = Mapping[str, Model]
Optimisers = Mapping[str, Optimizer]
_MODELS, _OPTIMISERS = "models/", "optimisers/"


def in_ranks() -> bool:
    """Whether this process is one of several that work together."""
    return dist.is_available() and dist.is_initialized()


def weights(models: Models) -> dict[str, Tensor]:
    """All weights and buffers by key, sharing their memory. Raises ValueError for what is no tensor."""
    tensors = {}
    for name, model in models.items():
        for key, value in (model.state_dict() if isinstance(model, nn.Module) else model).items():
            if not isinstance(value, Tensor):
                raise ValueError(f"{key} of the model {name} is no tensor and cannot be saved.")
            tensors[f"{_MODELS}{name}/{key}"] = value.detach()
    return tensors


def optimiser_state(models: Models, optimisers: Optimisers) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What the optimisers keep, by key: tensors, and plain values such as a counter."""
    owners, tensors, values = _owners(models), {}, {}
    for name, optimiser in optimisers.items():
        for parameter, entries in optimiser.state.items():
            for entry, value in entries.items():
                key = f"{_OPTIMISERS}{name}/{owners[id(parameter)]}/{entry}"
                if isinstance(value, Tensor):
                    tensors[key] = value.detach()
                else:
                    values[key] = value
    return tensors, values


def groups(models: Models, optimisers: Optimisers) -> dict[str, list[dict[str, Any]]]:
    """Hyperparameters of every optimiser's groups, with the names of their parameters under `params`.

    Raises ValueError for a parameter of none of the models.
    """
    owners, found = _owners(models), {}
    for name, optimiser in optimisers.items():
        unknown = sum(id(parameter) not in owners for parameter in _parameters(optimiser))
        if unknown:
            raise ValueError(
                f"{unknown} parameters in the optimiser {name} belong to none of the models that are saved "
                f"({', '.join(models)}): give their model as well."
            )
        found[name] = [
            {key: value.item() if isinstance(value, Tensor) else value for key, value in group.items()}
            | {"params": [owners[id(p)] for p in group["params"]]}
            for group in optimiser.param_groups
        ]
    return found


def write(folder: Path, tensors: dict[str, Tensor]) -> None:
    """All ranks write their parts. Raises OSError with its number for the disk's failures."""
    try:
        with _quiet():
            save(tensors, storage_writer=_Writer(folder), no_dist=not in_ranks())
    except CheckpointException as error:
        causes = [cause for cause, _ in error.failures.values()]
        raise next((c for c in causes if isinstance(c, OSError)), OSError(_messages(error))) from error


def stored(folder: Path) -> dict[str, Any]:
    """Size and precision of the tensors in a folder, by key. Raises ValueError for a damaged index."""
    try:
        return FileSystemReader(folder).read_metadata().state_dict_metadata
    except Exception as error:  # a damaged pickle fails in every way there is
        raise ValueError(f"Its index is damaged ({error}).") from error


def read(folder: Path, tensors: dict[str, Tensor], *, alone: bool = False) -> None:
    """Fill tensors by their keys, for one rank where alone. Raises ValueError for damaged files."""
    try:
        with _quiet():
            load(tensors, storage_reader=FileSystemReader(folder), no_dist=alone or not in_ranks())
    except CheckpointException as error:
        raise ValueError(f"Its files are damaged ({_messages(error)}).") from error


def models_in(folder: Path) -> list[str]:
    """Names of the models in a folder."""
    return sorted({key.split("/")[1] for key in stored(folder) if key.startswith(_MODELS)})


def read_model(folder: Path, name: str) -> dict[str, Tensor]:
    """One model's whole weights on the CPU by their names, in one process. Raises ValueError without it."""
    held, prefix = stored(folder), f"{_MODELS}{name}/"
    tensors = {
        key: torch.empty(meta.size, dtype=meta.properties.dtype)
        for key, meta in held.items()
        if key.startswith(prefix)
    }
    if not tensors:
        raise ValueError(f'It holds no model "{name}", only {", ".join(models_in(folder))}.')
    read(folder, tensors, alone=True)
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}


def read_all(
    folder: Path,
    models: Models,
    optimisers: Optimisers,
    saved_groups: Mapping[str, list[dict[str, Any]]],
    values: Mapping[str, Any],
) -> None:
    """Give models and optimisers back the state that `weights`, `optimiser_state` and `groups` gave.

    Raises ValueError when weights or parameters are not the same ones.
    """
    held, tensors = stored(folder), weights(models)
    _compare({key: meta for key, meta in held.items() if key.startswith(_MODELS)}, tensors)
    members, saved_members = (
        {name: [group["params"] for group in found] for name, found in given.items()}
        for given in (groups(models, optimisers), saved_groups)
    )
    if members != saved_members:
        raise ValueError(
            f"The optimisers ({', '.join(saved_groups) or 'none'}) hold other parameters there than those of "
            f"this run ({', '.join(optimisers) or 'none'}): build them as in the run that wrote it."
        )
    owners = _owners(models)
    parameters = {
        f"{_OPTIMISERS}{name}/{owners[id(parameter)]}": parameter
        for name, optimiser in optimisers.items()
        for parameter in _parameters(optimiser)
    }
    for key, meta in held.items():
        if key.startswith(_OPTIMISERS):
            parameter, dtype = parameters[key.rpartition("/")[0]].detach(), meta.properties.dtype
            tensors[key] = torch.empty(meta.size, dtype=dtype)
            if meta.size == parameter.shape:  # then it is sharded like its parameter
                tensors[key] = torch.empty_like(parameter, dtype=dtype)
    read(folder, tensors)
    for name, optimiser in optimisers.items():
        _restore(optimiser, f"{_OPTIMISERS}{name}/", {**tensors, **values}, saved_groups[name])


def _restore(
    optimiser: Optimizer, prefix: str, state: Mapping[str, Any], saved_groups: list[dict[str, Any]]
) -> None:
    by_owner: dict[str, dict[str, Any]] = {}
    for key, value in state.items():
        if key.startswith(prefix):
            owner, _, entry = key.removeprefix(prefix).rpartition("/")
            by_owner.setdefault(owner, {})[entry] = value
    names = [owner for group in saved_groups for owner in group["params"]]
    numbered = {index: by_owner[owner] for index, owner in enumerate(names) if owner in by_owner}
    restored = []
    for saved, now in zip(saved_groups, optimiser.state_dict()["param_groups"], strict=True):
        # JSON has no tuples
        same_kind = {k: tuple(v) if isinstance(now.get(k), tuple) else v for k, v in saved.items()}
        restored.append({**same_kind, "params": now["params"]})
    optimiser.load_state_dict({"state": numbered, "param_groups": restored})


def _compare(held: Mapping[str, Any], wanted: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless names, shapes and precisions of the weights are the same."""
    differing = {"missing there": wanted.keys() - held.keys(), "not expected": held.keys() - wanted.keys()}
    complaints = [
        f"{len(keys)} {problem}: {listed(sorted(key.removeprefix(_MODELS) for key in keys))}"
        for problem, keys in differing.items()
        if keys
    ]
    for key in sorted(wanted.keys() & held.keys()):
        there = (tuple(held[key].size), held[key].properties.dtype)
        here = (tuple(wanted[key].shape), wanted[key].dtype)
        if there != here:
            complaints.append(f"{key.removeprefix(_MODELS)} is {there} there and {here} here")
            break
    if complaints:
        raise ValueError(f"The weights are not those of this run: {'; '.join(complaints)}.")


def _owners(models: Models) -> dict[int, str]:
    """MODEL/NAME of every parameter, by its identity."""
    return {
        id(value): f"{name}/{key}"
        for name, model in models.items()
        for key, value in (model.named_parameters() if isinstance(model, nn.Module) else model.items())
    }


def _parameters(optimiser: Optimizer) -> Iterator[Tensor]:
    for group in optimiser.param_groups:
        yield from group["params"]


class _Writer(FileSystemWriter):
    """Keeps the disk's own errors: torch raises others after them, and chains do not travel between ranks."""

    def write_data(self, *positional: Any, **named: Any) -> Any:
        with _disk_errors():
            return super().write_data(*positional, **named)

    def finish(self, *positional: Any, **named: Any) -> None:
        with _disk_errors():
            super().finish(*positional, **named)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise OSError(cause.errno, cause.strerror) from error


def _messages(error: CheckpointException) -> str:
    return "; ".join(sorted({str(cause) or type(cause).__name__ for cause, _ in error.failures.values()}))


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is (disabled|unavailable)")
        yield
