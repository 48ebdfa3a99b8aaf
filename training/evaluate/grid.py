"""The grid of rows and prompts, done in units of a few prompts, each unit's samples in one file.

OUT/samples/ROW/prompts_000000.parquet   numbers of each prompt's sweep
OUT/pictures/ROW/00000_f1.8.png          8-bit pictures, for sheets
OUT/scenes/                              sharp pictures that several rows look at
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from lens_models import Camera

from .. import units
from ..config.load import ConfigError
from ..images import save_png
from .measures import SCHEMA, Meters
from .methods import METHODS
from .networks import NetworkCache
from .options import Evaluation
from .prompts import PromptEntry

log = logging.getLogger("fine_defocus")
#: Goes up when the same settings would give other samples than before.
VERSION = 1


def rows_of(table: str, wanted: str | None) -> list[str]:
    """Row names from "1-3,9,controlnet" in the table's order, numbered ones without. Raises ConfigError."""
    known = METHODS[table]
    if not wanted:
        return [name for name in known if name.isdigit() or name == "full"]
    chosen: set[str] = set()
    for part in wanted.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if dash and first.isdigit() and last.isdigit():
            within = [n for n in known if n.isdigit() and int(first) <= int(n) <= int(last)]
        else:
            within = [part] if part in known else []
        if not within:
            raise ConfigError(f'"{part}" is no row of {table}: there are {", ".join(known)}.')
        chosen |= set(within)
    return [name for name in known if name in chosen]


class RowWorker:
    """Units of one row to their samples."""

    def __init__(self, config: Evaluation, table: str, row: str, out: str, device: str | None = None):
        self.config, self.row, self.out = config, row, out
        self.networks, self.meters = _networks(config, device, Path(out) / "scenes")
        self.method = METHODS[table][row]

    @torch.no_grad()
    def __call__(self, unit: units.Unit) -> pa.Table:
        samples = [self.sample(PromptEntry(*item)) for item in unit.items]
        return pa.Table.from_pylist([{**dict.fromkeys(SCHEMA.names), **s} for s in samples], SCHEMA)

    def sample(self, entry: PromptEntry) -> dict[str, Any]:
        """One prompt: its sweep, and one picture more at its own aperture where FID is measured."""
        config, focal_mm = self.config, entry.focal_mm or self.config.focal_mm
        wanted = config.f_numbers
        own = entry.f_number if self.meters.inception is not None else None
        stops = torch.tensor(wanted if own is None else (*wanted, own), device=self.networks.device)
        camera = Camera(stops, focal_mm, config.sensor_mm)
        found = self.method.generate(self.networks, entry.prompt, camera, config.seed)
        sweep = replace(found, linear=found.linear[: len(wanted)])
        row: dict[str, Any] = {"number": entry.number, "prompt": entry.prompt, "focal_mm": focal_mm}
        row |= self.meters.sweep(sweep, wanted)
        if own is not None:
            row |= {"own_f_number": own, "own_features": self.meters.features(found.srgb[-1:])}
        if config.keep or entry.number < config.sheet_prompts:
            for f_number, picture in zip(wanted, sweep.srgb, strict=True):
                save_png(picture_path(self.out, self.row, entry.number, f_number), picture)
        return row


#: One process does row after row, and rows share most of their networks.
_held: dict[tuple[str, str | None, Path], tuple[NetworkCache, Meters]] = {}


def _networks(config: Evaluation, device: str | None, scenes: Path) -> tuple[NetworkCache, Meters]:
    key = (config.hash, device, scenes)
    if key not in _held:
        _held.clear()
        networks = NetworkCache(config, device, scenes)
        _held[key] = networks, Meters(config.metrics, networks.device)
    _held[key][0].release()
    return _held[key]


def picture_path(out: str | Path, row: str, number: int, f_number: float) -> Path:
    """Where a kept picture is."""
    return Path(out) / "pictures" / row / f"{number:05d}_f{f_number:g}.png"


def samples_folder(out: str | Path, row: str) -> Path:
    """Where a row's samples are."""
    return Path(out) / "samples" / row


def fill_grid(
    config: Evaluation,
    table: str,
    rows: Sequence[str],
    prompts: Sequence[PromptEntry],
    out: str | Path,
    *,
    workers: int = 0,
    address: str | None = None,
    gpus: float = 0.0,
    device: str | None = None,
    on_done: Callable[[str, str, int], None] | None = None,
) -> None:
    """Do what is missing of the grid; on_done(row, unit, prompts) after every unit.

    Raises ValueError where OUT holds an evaluation of other settings or prompts; otherwise as `units.run`.
    """
    items = [(a.number, a.prompt, a.f_number, a.focal_mm) for a in prompts]
    with units.ray_session(workers, address) if workers > 0 else nullcontext():
        for row in rows:
            units.run(
                units.plan(items, config.unit_size, "prompts"),
                partial(RowWorker, config, table, row, str(Path(out).resolve()), device),
                samples_folder(out, row),
                workers=workers,
                address=address,
                gpus=gpus,
                on_done=None if on_done is None else lambda unit, count, row=row: on_done(row, unit, count),
                identity=f"{table} row {row}, config {config.hash}, version {VERSION}",
            )


def read_samples(out: str | Path, row: str, prompts: int, unit_size: int) -> list[dict[str, Any]]:
    """A row's samples in the order of the prompts."""
    import pyarrow.parquet as pq

    names = [unit.name for unit in units.plan(range(prompts), unit_size, "prompts")]
    files = [samples_folder(out, row) / f"{name}.parquet" for name in names]
    return [sample for file in files for sample in pq.ParquetFile(file).read().to_pylist()]
