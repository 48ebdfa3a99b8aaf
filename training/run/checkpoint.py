"""Checkpoints: the whole state of a run in one folder, which either is complete or does not count.

    ROOT/step_000500/dcp/          weights and optimiser state, see `state.py`
                     state.json    step, hyperparameters of the optimisers, what else the loop wants to keep
                     config.yaml   of the run
                     COMPLETE      written last: name and size of every other file

A folder is written beside its place, renamed, and then marked; whatever ends the process in between, the
newest marked one is whole. Random numbers and data are functions of seed and step, so that this is all a
run needs to go on exactly, on any number of ranks; they must share the folder. The index of `dcp/` is a
pickle: load only checkpoints of people you trust.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lens_models.files import sync

from . import state
from .state import Models, Optimisers, in_ranks

log = logging.getLogger("fine_defocus")

FORMAT = "fine-defocus checkpoint 1"
_STEP = re.compile(r"step_(\d{6,})")
_ABSENT = "absent"
_T = TypeVar("_T")


class SaveFailed(RuntimeError):
    """A checkpoint could not be written; the complete ones are untouched."""


@dataclass(frozen=True)
class Resumed:
    """Where a run goes on. step: the next one. further: what the loop gave to `save`."""

    path: Path
    step: int
    further: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    root: folder of the run's checkpoints, shared by all ranks.
    config: nested mapping of plain values with all that the result depends on, the data's identity included.
    keep_last: newest checkpoints to keep. keep_every: also those of every so many steps; None for none.
    may_change: dotted keys of the config, or whole sections, that a resumed run may have set anew.

    `save` and `load` are called by all ranks together, or in one process without torch.distributed. models:
    modules, sharded or not, or mappings of tensors (such as the trainable parameters alone). The parameters
    that an optimiser holds must be among them.
    """

    def __init__(
        self,
        root: str | Path,
        config: Mapping[str, Any],
        *,
        keep_last: int = 3,
        keep_every: int | None = None,
        may_change: Collection[str] = (),
    ):
        import yaml

        if keep_last < 1 or (keep_every is not None and keep_every < 1):
            raise ValueError(
                f"keep_last is {keep_last} and keep_every {keep_every}: both must be at least 1 (leave "
                "keep_every out for none)."
            )
        self.root = Path(root)
        self._config = yaml.safe_dump(dict(config), sort_keys=True, allow_unicode=True)
        self._last, self._every, self._may_change = keep_last, keep_every, tuple(may_change)

    def save(
        self, step: int, models: Models, optimisers: Optimisers, further: Mapping[str, Any] | None = None
    ) -> Path:
        """Write the state before `step`; then delete the checkpoints that need not be kept.

        A complete checkpoint of this step is left as it is. further: plain values for `Resumed`.
        Raises SaveFailed, also for a full disk; ValueError when newer checkpoints are there.
        """
        folder, part = self.root / f"step_{step:06d}", self.root / f".step_{step:06d}.part"
        groups = state.groups(models, optimisers)
        kept, values = state.optimiser_state(models, optimisers)
        tensors = state.weights(models) | kept
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        content = {
            "format": FORMAT,
            "step": step,
            "further": dict(further or {}),
            "groups": groups,
            "values": values,
            "torch": torch.__version__,
            "world": dist.get_world_size() if in_ranks() else 1,
        }
        text = json.dumps(content, indent=1)
        try:
            if not _on_first(lambda: self._begin(folder, part, step, size)):
                return folder
            state.write(part / "dcp", tensors)
            _on_first(lambda: self._finish(folder, part, text))
        except OSError as error:
            if not in_ranks() or dist.get_rank() == 0:
                shutil.rmtree(part, ignore_errors=True)
            raise SaveFailed(self._failure(step, size, error)) from error
        return folder

    def load(self, models: Models, optimisers: Optimisers) -> Resumed | None:
        """Take the state of the newest complete checkpoint, in place; None when there is none.

        Raises ValueError for another config, which it compares, for other weights or parameters, and for
        damaged files.
        """
        found = _on_first(self._newest)
        if found is None:
            return None
        folder, content = found
        with _tensors(folder) as tensors:
            state.read_all(tensors, models, optimisers, content["groups"], content["values"])
        return Resumed(folder, content["step"], content["further"])

    def _newest(self) -> tuple[Path, dict[str, Any]] | None:
        import yaml

        folder = latest(self.root)
        if folder is None:
            return None
        content = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if content.get("format") != FORMAT:
            raise ValueError(
                f'{folder} is written as "{content.get("format")}" and this version reads "{FORMAT}": resume '
                "it with the version that wrote it."
            )
        there = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        changes = _differences(there, yaml.safe_load(self._config), self._may_change)
        if changes:
            raise ValueError(
                f"{folder} was written with another config: {'; '.join(changes)}. Set the values back, or "
                "start in another folder."
            )
        return folder, content

    def _begin(self, folder: Path, part: Path, step: int, size: int) -> bool:
        """Make room; False when this step is there already."""
        self.root.mkdir(parents=True, exist_ok=True)
        newest = latest(self.root)
        if newest is not None and _step(newest) >= step:
            if newest == folder:
                return False
            raise ValueError(
                f"{newest} is newer than step {step}: resume from it, or choose another folder for a new run."
            )
        for leftover in self.root.glob(".step_*.part"):
            shutil.rmtree(leftover)
        disk = shutil.disk_usage(self.root)
        if disk.total and disk.free < size:  # some network file systems tell nothing
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part.mkdir()
        return True

    def _finish(self, folder: Path, part: Path, content: str) -> None:
        _write(part / "state.json", content)
        _write(part / "config.yaml", self._config)
        files = {str(f.relative_to(part)): f.stat().st_size for f in part.rglob("*") if f.is_file()}
        sync(part / "dcp")
        sync(part)
        if folder.exists():
            _delete(folder)
        part.rename(folder)
        _write(folder / "COMPLETE", json.dumps({"files": files}, indent=1))
        sync(folder)
        sync(self.root)
        try:
            self._prune()
        except OSError as error:
            log.warning("Old checkpoints in %s cannot be deleted: %s", self.root, error)

    def _prune(self) -> None:
        """Delete what need not be kept, and what was left unfinished."""
        folders = _folders(self.root)
        whole = [folder for folder in folders if _complete(folder)]
        for folder in folders:
            damaged = folder not in whole and (folder / "COMPLETE").exists()
            milestone = folder in whole and self._every and _step(folder) % self._every == 0
            if folder not in whole[-self._last :] and not milestone and not damaged:
                _delete(folder)

    def _failure(self, step: int, size: int, error: OSError) -> str:
        last = latest(self.root)
        rest = f"{last.name} is still whole" if last else "No earlier one is there"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(self.root).free
            return (
                f"The disk of {self.root} is full: the checkpoint of step {step} needs {_bytes(size)} and "
                f"{_bytes(free)} are free. {rest}. Free some space or keep fewer checkpoints."
            )
        return f"The checkpoint of step {step} could not be written to {self.root} ({error}). {rest}."


def latest(root: str | Path) -> Path | None:
    """The newest complete checkpoint in a folder."""
    for folder in reversed(_folders(Path(root))):
        if _complete(folder):
            return folder
        if (folder / "COMPLETE").exists():
            log.warning("%s is passed over: files are missing or cut short. Copy it again.", folder)
    return None


def read_model(folder: str | Path, name: str) -> dict[str, Tensor]:
    """The whole weights of one model on the CPU, by their names; for one process, such as the export's.

    Raises ValueError for an incomplete checkpoint and when it holds no such model.
    """
    with _tensors(Path(folder)) as tensors:
        return state.read_model(tensors, name)


def models_in(folder: str | Path) -> list[str]:
    """Names of the models that a checkpoint holds. Raises ValueError for an incomplete one."""
    with _tensors(Path(folder)) as tensors:
        return state.models_in(tensors)


@contextmanager
def stop_requests(device: torch.device | str = "cpu") -> Iterator[Callable[[], bool]]:
    """Makes SIGTERM a question that the loop asks after every step, so that it can save and end.

        with stop_requests() as asked:
            ...
            if asked():
                checkpoints.save(...)

    The answer is the same on all ranks, which ask together: whether any of them was asked to stop. device: on
    which they can reduce a number, "cuda" with NCCL. To be entered in the main thread.
    """
    received = []

    def asked() -> bool:
        if not in_ranks():
            return bool(received)
        anywhere = torch.tensor(float(bool(received)), device=device)
        dist.all_reduce(anywhere, op=dist.ReduceOp.MAX)
        return bool(anywhere.item())

    before = signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def _on_first(action: Callable[[], _T]) -> _T:
    """What `action` gives or raises on rank 0, on every rank."""
    if not in_ranks():
        return action()
    outcome: list[Any] = [None]
    if dist.get_rank() == 0:
        try:
            outcome = [(action(), None)]
        except Exception as error:
            outcome = [(None, error)]
    dist.broadcast_object_list(outcome, src=0)
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


@contextmanager
def _tensors(folder: Path) -> Iterator[Path]:
    """The folder of a complete checkpoint's tensors; what is wrong with them gets the checkpoint's name."""
    if not _complete(folder):
        raise ValueError(f"{folder} is not a complete checkpoint: take another one, or copy it again.")
    try:
        yield folder / "dcp"
    except ValueError as error:
        raise ValueError(f"{folder} cannot be loaded. {error}") from error


def _differences(there: Any, here: Any, may_change: Collection[str]) -> list[str]:
    """A phrase for every dotted key with two values."""
    old, new = dict(_flat(there)), dict(_flat(here))
    free = tuple(f"{key}." for key in may_change)
    return [
        f"{key} is {old.get(key, _ABSENT)} there and {new.get(key, _ABSENT)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, _ABSENT) != new.get(key, _ABSENT) and not f"{key}.".startswith(free)
    ]


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _folders(root: Path) -> list[Path]:
    """Folders with the name of a checkpoint, oldest first."""
    if not root.is_dir():
        return []
    return sorted((f for f in root.iterdir() if _STEP.fullmatch(f.name) and f.is_dir()), key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def _complete(folder: Path) -> bool:
    try:
        files = json.loads((folder / "COMPLETE").read_text(encoding="utf-8"))["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError):
        return False


def _delete(folder: Path) -> None:
    (folder / "COMPLETE").unlink(missing_ok=True)  # first: half a checkpoint must not count
    shutil.rmtree(folder)


def _write(file: Path, text: str) -> None:
    file.write_text(text + "\n", encoding="utf-8")
    sync(file)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
