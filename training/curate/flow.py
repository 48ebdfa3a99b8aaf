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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from lens_models.files import atomic

from .. import units as work
from ..config.load import ConfigError
from .options import Curation, digest
from .pixels import open_photo

#: Raised when a stage of the same settings would write other rows than before.
VERSION = 1
#: Every stage's table starts with these; `reason` says why a photo was dropped, or remarks on a kept one.
VERDICT = [("kept", pa.bool_()), ("reason", pa.string())]


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
    progress: Any = None,
) -> Done:
    """Do the units that are missing, write the settings into the folder, and the note.

    inputs: what each unit is (a text that changes with what it reads) and its items. extra: further settings
    in the names, such as the hash of weights. note: name of the note of a preparation; the stage's own when
    not given. total: photos. progress: counts them; a bar of tqdm, or what has its `reset` and `update`.
    """
    chain = digest(VERSION, config.chain(stage), extra)
    units, repeats = [], Counter()
    for name, items in inputs:
        # units that read the same are numbered, so that their names differ
        units.append(work.Unit(digest(chain, [name, repeats[name]]), items))
        repeats[name] += 1
    folder = f"{note or stage}-{chain}-{digest([unit.name for unit in units])}"
    output = Path(config.output)
    path = output / folder
    path.mkdir(parents=True, exist_ok=True)
    _take_over(path, output.glob(f"{note or stage}-{chain}-*"), units)
    if progress is not None:
        progress.reset(total)
        left = {unit.name for unit in work.missing(path, units)}
        there = [path / f"{unit.name}.parquet" for unit in units if unit.name not in left]
        progress.update(sum(pq.read_metadata(file).num_rows for file in there))
    work.run(
        units,
        make_worker,
        path,
        workers=engine.workers,
        address=engine.address,
        gpus=engine.gpus if gpu else 0.0,
        identity=chain,
        on_done=None if progress is None else lambda _name, rows: progress.update(rows),
    )
    done = Done(note or stage, folder, tuple(unit.name for unit in units), chain)
    write_text(output / f"{done.stage}.json", json.dumps(asdict(done), indent=1))
    if note is None:
        stages = config.stages[: config.stages.index(stage) + 1]
        settings = {name: getattr(config, name).model_dump(mode="json") for name in stages}
        text = json.dumps({"chain": config.chain(stage), "stages": settings}, indent=1)
        write_text(path / "settings.json", text)
    return done


def _take_over(path: Path, others: Iterator[Path], units: Sequence[work.Unit]) -> None:
    earlier = [other for other in others if other != path and other.is_dir()]
    for unit in work.missing(path, units) if earlier else ():
        name = f"{unit.name}.parquet"
        for other in earlier:
            with suppress(FileNotFoundError, FileExistsError):
                try:
                    os.link(other / name, path / name)
                except PermissionError:  # a disk without hard links
                    with atomic(path / name) as part:
                        shutil.copyfile(other / name, part)
                break


def read_done(config: Curation, stage: str) -> Done:
    """The note of a finished stage. Raises ConfigError when it was not run, or with other settings.

    The hash of weights is left to the stage itself.
    """
    file = Path(config.output) / f"{stage}.json"
    if not file.is_file():
        raise ConfigError(f"{stage} has not been run in {config.output}: run it first, or all.")
    note = json.loads(file.read_text(encoding="utf-8"))
    done = Done(**note | {"units": tuple(note["units"])})
    settings = Path(config.output) / done.folder / "settings.json"
    if not settings.is_file() or json.loads(settings.read_text())["chain"] != config.chain(stage):
        raise ConfigError(
            f"{stage} in {config.output} was run with other settings than the config has now: run it again, "
            "or all."
        )
    return done


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A unit's table."""
    return pq.read_table(path, columns=list(columns) if columns else None, partitioning=cast("str", None))


def counts(config: Curation, done: Done) -> tuple[int, int]:
    """Photos that a stage kept and dropped."""
    kept = total = 0
    for file in done.files(config.output):
        column = read_table(file, ("kept",))["kept"]
        kept += column.to_pylist().count(True)
        total += len(column)
    return kept, total - kept


def with_columns(table: pa.Table, columns: Iterable[tuple[str, pa.DataType, Any]]) -> pa.Table:
    """The table with columns of these names, types and values, in the place of those it has."""
    for name, kind, values in columns:
        field, place = pa.field(name, kind), table.schema.get_field_index(name)
        array = pa.array(values, kind)
        table = table.append_column(field, array) if place < 0 else table.set_column(place, field, array)
    return table


def signed(table: pa.Table, config: Curation, stage: str, unit: work.Unit) -> pa.Table:
    """The table with what it was made with in its metadata."""
    return table.replace_schema_metadata({"settings": config.chain(stage), "unit": unit.name})


class Undecodable(ValueError):
    """A photo without pixels; the message is the reason for the table."""


class RowWorker:
    """Reads a unit's kept rows and adds the verdict of `verdict`, or `judge`, on each.

    stage: the name of its module. columns: names and types of what is added, besides the verdict.
    gpu: whether it runs a network. note: as in `run_stage`.
    """

    stage: str
    columns: tuple[tuple[str, pa.DataType], ...] = ()
    gpu, note = False, None

    def __init_subclass__(cls) -> None:
        cls.stage = cls.__module__.rpartition(".")[2]

    def __init__(self, config: Curation):
        self.config = config

    @classmethod
    def extra(cls, config: Curation, **more: Any) -> str:
        """Further settings in the names of the units, as `run_stage` has it. more: as in `run`."""
        return ""

    @classmethod
    def run(cls, config: Curation, before: Done, engine: Engine, progress: Any = None, **more: Any) -> Done:
        """The stage over all rows that the stage before it kept. more: further arguments of the worker."""
        return run_stage(
            config,
            cls.stage,
            [(name, (f"{before.folder}/{name}.parquet",)) for name in before.units],
            partial(cls, config, **more),
            engine,
            extra=cls.extra(config, **more),
            note=cls.note,
            gpu=cls.gpu,
            total=counts(config, before)[0],
            progress=progress,
        )

    def judge(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """For each row kept, reason and the columns; what is left out is None."""
        verdicts = []
        for row in rows:
            try:
                verdicts.append(self.verdict(row))
            except Undecodable as error:
                verdicts.append(dropped(str(error)))
        return verdicts

    def verdict(self, row: dict[str, Any]) -> dict[str, Any]:
        """On one row. Raises Undecodable for one to drop."""
        raise NotImplementedError

    def open(self, row: dict[str, Any], draft_px: int | None = None) -> Any:
        """A row's photo, as `open_photo` has it. Raises Undecodable."""
        try:
            return open_photo(picture_path(self.config, row), draft_px=draft_px)
        except Exception as error:  # damaged files fail in every way there is
            raise Undecodable(
                f"its pixels cannot be decoded: {str(error) or type(error).__name__}"
            ) from error

    def __call__(self, unit: work.Unit) -> pa.Table:
        table = read_table(Path(self.config.output) / unit.items[0])
        table = table.filter(table["kept"])
        verdicts = self.judge(table.to_pylist())
        columns = ((n, kind, [v.get(n) for v in verdicts]) for n, kind in (*VERDICT, *self.columns))
        return signed(with_columns(table, columns), self.config, self.stage, unit)


def kept(reason: str = "", **columns: Any) -> dict[str, Any]:
    """The verdict on a photo that goes on."""
    return {"kept": True, "reason": reason, **columns}


def dropped(reason: str, **columns: Any) -> dict[str, Any]:
    """The verdict on one that does not; reason: why, a phrase."""
    return {"kept": False, "reason": reason, **columns}


def picture_path(config: Curation, row: dict[str, Any]) -> Path:
    """Where a row's photo is."""
    return Path(config.photos[row["root"]]) / row["path"]
