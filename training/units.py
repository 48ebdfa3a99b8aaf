"""Work in units: a fixed cut of a list, one file for each piece, written whole or not at all.

What is done is what lies in the folder, so a run that was killed at any moment goes on when it is started
again: only units without a file are done, and no row is there twice.

FOLDER/plan.json           what the units are
FOLDER/PREFIX_000000.parquet
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from lens_models.files import atomic, sync

log = logging.getLogger("fine_defocus")

FORMAT = "fine-defocus units 1"
PLAN = "plan.json"
_LOCK, _SUFFIX = ".lock", ".parquet"
_FAILURES_NAMED = 3


@dataclass(frozen=True)
class Unit:
    """name: stem of its file. items: what it is about, plain values that can be pickled."""

    name: str
    items: tuple


Worker = Callable[[Unit], pa.Table]


class UnitError(RuntimeError):
    """Units whose worker raised; the sentence names the first and its cause."""


def plan(items: Iterable[Any], size: int, prefix: str) -> list[Unit]:
    """Cut items in their order into units PREFIX_000000 and so on. Raises ValueError for a size below 1."""
    if size < 1:
        raise ValueError(f"A unit holds at least 1 item, not {size}.")
    items = tuple(items)
    cuts = range(0, len(items), size)
    return [Unit(f"{prefix}_{k:06d}", items[start : start + size]) for k, start in enumerate(cuts)]


def missing(folder: str | Path, units: Sequence[Unit]) -> list[Unit]:
    """The units that have no file."""
    folder = Path(folder)
    there = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    return [unit for unit in units if unit.name + _SUFFIX not in there]


def write(folder: str | Path, name: str, table: pa.Table) -> Path:
    """A unit's file, on the disk when this returns: written beside its place, then moved there."""
    import pyarrow.parquet as pq

    folder = Path(folder)
    path = folder / f"{name}{_SUFFIX}"
    with atomic(path) as part:
        pq.write_table(table, part, compression="zstd")
        sync(part)
    with suppress(OSError):  # not every system opens folders
        sync(folder)
    return path


def run(
    units: Sequence[Unit],
    make_worker: Callable[[], Worker],
    folder: str | Path,
    *,
    workers: int = 0,
    address: str | None = None,
    gpus: float = 0.0,
    on_done: Callable[[str, int], None] | None = None,
    identity: str = "",
) -> int:
    """Do the units that are missing; returns how many were done.

    make_worker: makes what does them, once per process, and can be pickled. workers: 0 is this process, else
        so many actors of Ray, which write the files themselves.
    address: of a Ray cluster, whose machines see `folder` and this code under the same paths; not given, Ray
        is started here. gpus: of each actor.
    on_done(name, rows): after every unit. identity: what else the rows depend on, such as a config's hash.

    Raises ValueError where the folder holds other work or another process is at it, ImportError without Ray;
    UnitError after all others are done when the worker raised for a unit.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        _check_plan(folder, units, identity)
        left = missing(folder, units)
        if left:
            outcomes, failed = _here(left, make_worker, folder), []
            if workers > 0:
                outcomes = _with_ray(left, make_worker, folder, min(workers, len(left)), address, gpus)
            for unit, rows, error in outcomes:
                if error is not None:
                    failed.append((unit, error))
                    log.warning("%s failed: %s", unit.name, _message(error))
                elif on_done is not None:
                    on_done(unit.name, rows)
            for part in folder.glob(".*.part.*"):  # what killed processes left half written
                part.unlink(missing_ok=True)
            if failed:
                raise _failure(failed, len(left), folder) from failed[0][1]
        return len(left)


Outcome = tuple[Unit, int, Exception | None]


class _Actor:
    """A worker and where its tables go; in this process or in one of Ray."""

    def __init__(self, make_worker: Callable[[], Worker], folder: str | Path):
        self.worker, self.folder = make_worker(), folder

    def ready(self) -> None:
        """Answers when the worker is made."""

    def do(self, unit: Unit) -> int:
        """Do and write a unit; its rows."""
        table = self.worker(unit)
        write(self.folder, unit.name, table)
        return table.num_rows


def _here(units: Sequence[Unit], make_worker: Callable[[], Worker], folder: Path) -> Iterator[Outcome]:
    actor = _Actor(make_worker, folder)
    for unit in units:
        try:
            outcome = unit, actor.do(unit), None
        except Exception as error:  # the others are done first
            outcome = unit, 0, error
        yield outcome


def _with_ray(
    units: Sequence[Unit],
    make_worker: Callable[[], Worker],
    folder: Path,
    workers: int,
    address: str | None,
    gpus: float,
) -> Iterator[Outcome]:
    with ray_session(workers, address) as ray:
        kind = ray.remote(num_cpus=1, num_gpus=gpus)(_Actor)

        def actor() -> Any:
            return kind.remote(make_worker, str(folder.resolve()))

        free = [actor() for _ in range(workers)]
        ray.get([one.ready.remote() for one in free])  # a worker that cannot be made is no unit's fault
        waiting, busy = deque(units), {}
        while waiting or busy:
            while waiting and free:
                unit, one = waiting.popleft(), free.pop()
                busy[one.do.remote(unit)] = unit, one
            (done, *_), _ = ray.wait(list(busy), num_returns=1)
            unit, one = busy.pop(done)
            try:
                rows, error = ray.get(done), None
            except ray.exceptions.RayActorError as died:
                rows, error, one = 0, RuntimeError(f"its process ended ({died})"), actor()
            except Exception as raised:
                rows, error = 0, getattr(raised, "cause", None) or raised
            free.append(one)
            yield unit, rows, error
        for one in free:
            ray.kill(one)  # the next run in this session wants their places


@contextmanager
def ray_session(workers: int, address: str | None = None) -> Iterator[Any]:
    """Ray inside the `with`, for several runs one after the other; one that was started before stays.

    workers: processes, at least so many CPUs are declared on this machine. Raises ImportError without Ray.
    """
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
    except ImportError as error:
        raise ImportError(
            f"Work in {workers} processes needs Ray, which cannot be imported: pip install ray, or use 0 "
            f"workers. ({error})"
        ) from error
    if ray.is_initialized():
        yield ray
        return
    here = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join(p for p in (here, os.environ.get("PYTHONPATH")) if p)
    ray.init(
        address=address,
        include_dashboard=None if address else False,
        num_cpus=None if address else max(workers, os.cpu_count() or 1),
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    try:
        yield ray
    finally:
        ray.shutdown()


def _failure(failed: Sequence[tuple[Unit, Exception]], left: int, folder: Path) -> UnitError:
    unit, error = failed[0]
    others = [unit.name for unit, _ in failed[1 : 1 + _FAILURES_NAMED]]
    rest = len(failed) - 1 - len(others)
    also = f" Also failed: {', '.join(others)}{f' and {rest} more' if rest else ''}." if others else ""
    return UnitError(
        f"{len(failed)} of {left} units in {folder} failed; the others are done. {unit.name}: "
        f"{_message(error)}{also} Started again, only these are done."
    )


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().rstrip(".:") + "."


def _digest(unit: Unit) -> str:
    return hashlib.sha256(repr((unit.name, unit.items)).encode()).hexdigest()[:12]


def _check_plan(folder: Path, units: Sequence[Unit], identity: str) -> None:
    """Write the plan, or refuse another one that is there."""
    names = Counter(unit.name for unit in units)
    again, count = names.most_common(1)[0] if names else ("", 1)
    if count > 1:
        raise ValueError(f"{count} units are called {again}: they would write the same file.")
    now = {"format": FORMAT, "identity": identity, "units": {unit.name: _digest(unit) for unit in units}}
    path = folder / PLAN
    if not path.is_file():
        with atomic(path) as part:
            part.write_text(json.dumps(now, indent=0) + "\n", encoding="utf-8")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        difference = _difference(before, now)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): choose another folder.") from error
    if difference:
        raise ValueError(
            f"{folder} holds other work: {difference}. Choose another folder, or delete this one."
        )


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two plans, or nothing."""
    if before["format"] != FORMAT:
        return f'it was written as "{before["format"]}" and this version writes "{FORMAT}"'
    if before["identity"] != now["identity"]:
        return f'its settings are "{before["identity"]}" and those of this run "{now["identity"]}"'
    there, wanted = before["units"], now["units"]
    if len(there) != len(wanted):
        return f"it is cut into {len(there)} units and this run into {len(wanted)}"
    for name, digest in wanted.items():
        if name not in there:
            return f"it has no unit {name}"
        if there[name] != digest:
            return f"the items of {name} are others than before"
    return ""


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; where the system has no such lock, nothing is held."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / _LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"Another process works in {folder}: wait for it, or end it first.") from error
        except OSError:
            log.debug("%s is on a disk without locks", folder)
        yield
