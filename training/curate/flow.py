"""How a stage runs: the units of the stage before it, one file each, and a note of what is done.

    OUTPUT/exif.json                  where the finished stage is and the settings it was made with
    OUTPUT/exif-<settings>-<units>/   one parquet file per unit

A unit's name follows from its settings and from what it reads, so that files of an earlier run with the same
settings are taken over when photos were added.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .. import units as work
from ..config.load import ConfigError
from .options import Curation, digest

#: Raised when a stage of the same settings would write other rows than before.
VERSION = 1
#: Every stage's table starts with these; `reason` says why a photo was dropped, or remarks on a kept one.
VERDICT = [("kept", pa.bool_()), ("reason", pa.string())]


class Progress(Protocol):
    """Is told how many photos a stage has, and how many were just done."""

    def start(self, total: int) -> None: ...

    def done(self, photos: int) -> None: ...


@dataclass(frozen=True)
class Engine:
    """Where the work runs: workers 0 is this process, else Ray actors; gpus: of each that runs a network."""

    workers: int = 0
    address: str | None = None
    gpus: float = 0.0


@dataclass(frozen=True)
class Done:
    """A finished stage: folder within the output, names of its units in order, settings."""

    stage: str
    folder: str
    units: tuple[str, ...]
    chain: str

    def files(self, output: str | Path) -> Iterator[Path]:
        """Its tables, in order."""
        return (Path(output) / self.folder / f"{name}.parquet" for name in self.units)

    def rows(self, output: str | Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Its rows, in order."""
        for file in self.files(output):
            yield from read_table(file, columns).to_pylist()


def run_stage(
    config: Curation,
    stage: str,
    inputs: Sequence[tuple[str, tuple]],
    make_worker: Callable[[], Callable[[work.Unit], pa.Table]],
    engine: Engine,
    *,
    extra: str = "",
    note: str | None = None,
    gpu: bool = False,
    total: int = 0,
    progress: Progress | None = None,
) -> Done:
    """Do the units that are missing and write the note.

    inputs: what each unit is (a text that changes with what it reads) and its items. extra: further settings
    in the names, such as the hash of weights. note: name of the note; `stage` when not given. total: photos.
    """
    chain = digest(VERSION, config.chain(stage), extra)
    units = [work.Unit(digest(chain, told), items) for told, items in _numbered(inputs)]
    folder = f"{note or stage}-{chain}-{digest([unit.name for unit in units])}"
    output = Path(config.output)
    path = output / folder
    path.mkdir(parents=True, exist_ok=True)
    _take_over(path, output.glob(f"{note or stage}-{chain}-*"), units)
    if progress is not None:
        progress.start(total)
        left = {unit.name for unit in work.missing(path, units)}
        progress.done(sum(row_count(path / f"{u.name}.parquet") for u in units if u.name not in left))
    work.run(
        units,
        make_worker,
        path,
        workers=engine.workers,
        address=engine.address,
        gpus=engine.gpus if gpu else 0.0,
        identity=chain,
        on_done=None if progress is None else lambda _name, rows: progress.done(rows),
    )
    done = Done(note or stage, folder, tuple(unit.name for unit in units), chain)
    write_text(output / f"{done.stage}.json", json.dumps(asdict(done), indent=1))
    return done


def _numbered(inputs: Sequence[tuple[str, tuple]]) -> Iterator[tuple[list, tuple]]:
    """Number units that read the same, so that their names differ."""
    seen: dict[str, int] = {}
    for told, items in inputs:
        seen[told] = seen.get(told, -1) + 1
        yield [told, seen[told]], items


def _take_over(path: Path, others: Iterator[Path], units: Sequence[work.Unit]) -> None:
    others = [other for other in others if other != path and other.is_dir()]
    if not others:
        return
    for unit in work.missing(path, units):
        name = f"{unit.name}.parquet"
        for other in others:
            with suppress(FileNotFoundError, FileExistsError):
                try:
                    os.link(other / name, path / name)
                except PermissionError:  # a disk without hard links
                    shutil.copyfile(other / name, path / f".{name}.part")
                    (path / f".{name}.part").rename(path / name)
                break


def read_done(config: Curation, stage: str, *, current: bool = True) -> Done:
    """The note of a finished stage.

    Raises ConfigError when it was not run, or, with `current`, when it was run with other settings.
    """
    file = Path(config.output) / f"{stage}.json"
    if not file.is_file():
        raise ConfigError(f"{stage} has not been run in {config.output}: run it first, or all.")
    told = json.loads(file.read_text(encoding="utf-8"))
    done = Done(told["stage"], told["folder"], tuple(told["units"]), told["chain"])
    if current and not is_current(config, done):
        raise ConfigError(
            f"{stage} in {config.output} was run with other settings than the config has now: run it again, "
            "or all."
        )
    return done


def is_current(config: Curation, done: Done) -> bool:
    """Whether a stage was run with these settings; the hash of weights is left to the stage itself."""
    file = Path(config.output) / done.folder / "settings.json"
    return file.is_file() and json.loads(file.read_text())["chain"] == config.chain(done.stage)


def write_settings(config: Curation, done: Done) -> None:
    """Say in a stage's folder what it was made with."""
    stages = config.stages[: config.stages.index(done.stage) + 1]
    told = {name: getattr(config, name).model_dump(mode="json") for name in stages}
    text = json.dumps({"chain": config.chain(done.stage), "stages": told}, indent=1)
    write_text(Path(config.output) / done.folder / "settings.json", text)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A unit's table."""
    return pq.read_table(path, columns=list(columns) if columns else None, partitioning=None)


def columns_of(path: Path) -> list[str]:
    """Of a unit's table."""
    return pq.read_schema(path).names


def row_count(path: Path) -> int:
    """Of a unit's table."""
    return pq.read_metadata(path).num_rows


def counts(config: Curation, done: Done) -> tuple[int, int]:
    """Photos that a stage kept and dropped."""
    kept = total = 0
    for file in done.files(config.output):
        column = read_table(file, ("kept",))["kept"]
        kept += pc.sum(column).as_py() or 0
        total += len(column)
    return kept, total - kept


def inputs_of(before: Done) -> list[tuple[str, tuple]]:
    """One unit per file of the stage before."""
    return [(name, (f"{before.folder}/{name}.parquet",)) for name in before.units]


class RowWorker:
    """Reads a unit's kept rows and adds what `judge` finds out about each.

    columns: names and types of what is added, besides the verdict.
    """

    columns: tuple[tuple[str, pa.DataType], ...] = ()

    def __init__(self, config: Curation):
        self.config = config

    def judge(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """For each row kept, reason and the columns; what is left out is None."""
        raise NotImplementedError

    def __call__(self, unit: work.Unit) -> pa.Table:
        table = read_table(Path(self.config.output) / unit.items[0])
        table = table.filter(table["kept"])
        found = self.judge(table.to_pylist())
        for name, kind in [*VERDICT, *self.columns]:
            values = pa.array([row.get(name) for row in found], type=kind)
            place = table.schema.get_field_index(name)
            table = (
                table.append_column(pa.field(name, kind), values)
                if place < 0
                else table.set_column(place, pa.field(name, kind), values)
            )
        return table.replace_schema_metadata({"settings": self.config.chain(self.stage), "unit": unit.name})

    @property
    def stage(self) -> str:
        """The name of its stage: that of its module."""
        return type(self).__module__.rpartition(".")[2]


def kept(reason: str = "", **columns: Any) -> dict[str, Any]:
    """The verdict on a photo that goes on."""
    return {"kept": True, "reason": reason, **columns}


def dropped(reason: str, **columns: Any) -> dict[str, Any]:
    """The verdict on one that does not; reason: why, a phrase."""
    return {"kept": False, "reason": reason, **columns}


def picture_path(config: Curation, row: dict[str, Any]) -> Path:
    """Where a row's photo is."""
    return Path(config.photos[row["root"]]) / row["path"]
