"""The last stage: squares, their latents, and the two sets that training reads.

The networks' work is done in units like that of every stage; then one process puts the results into tars, in
the order of the units.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ..data import PackedWriter, Record
from ..data.pack import JPEG_QUALITY
from ..data.packed import read_manifest
from .flow import (
    Done,
    Engine,
    Progress,
    RowWorker,
    counts,
    dropped,
    inputs_of,
    kept,
    picture_path,
    read_done,
    run_stage,
    write_settings,
)
from .options import Curation, digest
from .pixels import open_photo, square, to_tensor
from .rules import DEEP, SHALLOW

SETS = (DEEP, SHALLOW)
#: Columns of the tables that go into the sets' index, with what stands for nothing.
_FURTHER = {"p_yes": float("nan"), "blur_p": float("nan"), "exposure_s": float("nan"), "camera": ""}
_ROWS = 64


def run(config: Curation, before: Done, engine: Engine, progress: Progress | None = None) -> Done:
    """Encode all photos that are left and write the sets that are missing."""
    limits = _limits(config, before)
    make = partial(Worker, config, limits)
    done = run_stage(
        config,
        "pack",
        inputs_of(before),
        make,
        engine,
        extra=digest(limits),
        gpu=True,
        total=counts(config, before)[0],
        progress=progress,
    )
    write_settings(config, done)
    for name in SETS:
        write_set(config, done, name)
    return done


def _limits(config: Curation, before: Done) -> dict[str, str]:
    """The largest key of each set that is packed, where there are more photos than wanted."""
    if config.pack.per_set is None:
        return {}
    keys: dict[str, set[str]] = {name: set() for name in SETS}
    for row in before.rows(config.output, ("kept", "set", "key")):
        if row["kept"]:
            keys[row["set"]].add(row["key"])
    return {
        name: sorted(found)[config.pack.per_set - 1]
        for name, found in keys.items()
        if len(found) > config.pack.per_set
    }


class Worker(RowWorker):
    """Cuts and encodes a unit's photos.

    Columns: the square's JPEG, its latent's mean and std (fp16, shape in `latent`), what was cut off, px, and
    sensor_width_mm, the length of sensor that the square's width spans.
    """

    columns = (
        ("jpeg", pa.binary()),
        ("mean", pa.binary()),
        ("std", pa.binary()),
        ("latent", pa.list_(pa.int32())),
        ("crop_top", pa.int32()),
        ("crop_left", pa.int32()),
        ("sensor_width_mm", pa.float64()),
    )

    def __init__(self, config: Curation, limits: dict[str, str], encode: Callable | None = None):
        super().__init__(config)
        self.limits = limits
        self._encode = encode or encoder(config)

    def judge(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        waiting: list[tuple[dict[str, Any], Tensor]] = []
        for row in rows:
            verdict, picture = self._cut(row)
            found.append(verdict)
            if picture is not None:
                waiting.append((verdict, picture))
            if len(waiting) == self.config.pack.batch:
                self._fill(waiting)
        self._fill(waiting)
        return found

    def _cut(self, row: dict[str, Any]) -> tuple[dict[str, Any], Tensor | None]:
        options = self.config.pack
        if row["key"] > self.limits.get(row["set"], "g"):
            return dropped(f"more than the {options.per_set} wanted for the {row['set']} set"), None
        try:
            photo = open_photo(picture_path(self.config, row))
            picture, (top, left), scale = square(photo, options.size_px)
        except Exception as error:  # damaged files fail in every way there is
            return dropped(f"its pixels cannot be decoded: {str(error) or type(error).__name__}"), None
        verdict = kept(
            row["reason"],
            crop_top=top,
            crop_left=left,
            # in px of the square: fx = focal · width / sensor
            sensor_width_mm=row["focal_mm"] * options.size_px / (row["fx_px"] * scale),
        )
        if options.images:
            encoded = io.BytesIO()
            picture.save(encoded, "JPEG", quality=JPEG_QUALITY, subsampling=0)
            verdict["jpeg"] = encoded.getvalue()
        return verdict, to_tensor(picture)

    def _fill(self, waiting: list[tuple[dict[str, Any], Tensor]]) -> None:
        if not waiting:
            return
        means, stds = self._encode(torch.stack([picture for _, picture in waiting]))
        for (verdict, _), mean, std in zip(waiting, means, stds, strict=True):
            halves = [tensor.half().contiguous() for tensor in (mean, std)]
            if not all(half.isfinite().all() for half in halves):
                verdict |= dropped("its latent is not finite in half precision")
                continue
            verdict["mean"], verdict["std"] = (half.numpy().tobytes() for half in halves)
            verdict["latent"] = list(mean.shape)
        waiting.clear()


def encoder(config: Curation) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The autoencoder as a function of uint8 `(B, 3, H, W)`: mean and std of the latent, on the CPU, fp32."""
    from ..config.sections import Paths
    from ..networks.build import autoencoder

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = autoencoder(Paths(source=config.pack.source, vae=config.pack.vae)).to(device).eval()

    def encode(pictures: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            found = vae.encode(pictures.to(device).float() / 127.5 - 1.0).latent_dist
            return found.mean.float().cpu(), found.std.float().cpu()

    return encode


@dataclass(frozen=True)
class Written:
    """A set: its folder, or None where no photo was left for it; number of samples."""

    path: Path | None
    samples: int


def write_set(config: Curation, done: Done, name: str) -> Written:
    """Put one set's samples into tars, in the order of the units; nothing is done where it is there already.

    A set that was made of other units is replaced.
    """
    path = Path(config.output) / name
    if path.is_dir() and read_manifest(path)["about"].get("units") == done.folder:
        return Written(path, read_manifest(path)["samples"])
    # beside the old one until it is whole
    fresh = path.with_name(f"{name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    about = {"units": done.folder, "settings": done.chain, "set": name, "curation": _told(config)}
    keys: set[str] = set()
    with ExitStack() as stack:
        writer = None
        for row in _rows(config, done):
            if not row["kept"] or row["set"] != name or row["key"] in keys:
                continue
            if writer is None:
                size = int(config.pack.shard_mb * 1e6)
                writer = stack.enter_context(PackedWriter(fresh, about=about, shard_bytes=size))
            writer.add(_record(row))
            keys.add(row["key"])
    shutil.rmtree(path, ignore_errors=True)
    if not keys:
        return Written(None, 0)
    fresh.rename(path)
    return Written(path, len(keys))


def _told(config: Curation) -> str:
    return config.model_dump_json(exclude={"output", "photos", "report_samples"})


def _rows(config: Curation, done: Done) -> Iterator[dict[str, Any]]:
    for file in done.files(config.output):
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(_ROWS):
                yield from batch.to_pylist()


def _record(row: dict[str, Any]) -> Record:
    mean, std = (
        torch.from_numpy(np.frombuffer(row[part], np.float16).copy()).reshape(row["latent"])
        for part in ("mean", "std")
    )
    told = dict(row, camera=" ".join(filter(None, (row["make"], row["model"]))))
    further = {name: none if told.get(name) is None else told[name] for name, none in _FURTHER.items()}
    return Record(
        key=row["key"],
        mean=mean,
        std=std,
        f_number=row["f_number"],
        focal_mm=row["focal_mm"],
        sensor_mm=row["sensor_width_mm"],
        caption=row.get("caption") or "",
        crop=(row["crop_top"], row["crop_left"]),
        original=(row["height"], row["width"]),
        jpeg=row["jpeg"],
        further=further,
    )


def packed_sets(config: Curation) -> dict[str, int]:
    """Samples of the sets that are written."""
    read_done(config, "pack")
    paths = {name: Path(config.output) / name for name in SETS}
    return {name: read_manifest(path)["samples"] for name, path in paths.items() if path.is_dir()}
