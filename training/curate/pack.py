"""The last stage: squares, their latents, and the two sets that training reads.

The networks' work is done in units like that of every stage; then one process puts the results into tars, in
the order of the units.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ..data.pack import JPEG_QUALITY, PackedWriter, Record
from ..data.packed import read_manifest
from .flow import Done, Engine, dropped, kept
from .gpu_worker import PictureWorker
from .options import Curation, digest
from .pixels import square, to_tensor
from .rules import DEEP, SHALLOW

SETS = (DEEP, SHALLOW)
#: uint8 `(B, 3, H, W)` to mean and std of the latent.
Encode = Callable[[Tensor], tuple[Tensor, Tensor]]
#: Columns of the tables that go into the sets' index, with what stands for nothing.
_FURTHER = {"p_yes": float("nan"), "blur_p": float("nan"), "exposure_s": float("nan"), "camera": ""}
_ROWS = 64


def run(config: Curation, before: Done, engine: Engine, progress: Any = None) -> Done:
    """Encode all photos that are left and write the sets that are missing."""
    done = EncodeWorker.run(config, before, engine, progress, limits=_limits(config, before))
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
    most = config.pack.per_set
    return {name: sorted(own)[most - 1] for name, own in keys.items() if len(own) > most}


class EncodeWorker(PictureWorker):
    """Cuts and encodes a unit's photos.

    Columns: the square's JPEG, its latent's mean and std (fp16, shape in `latent`), what was cut off, px, and
    sensor_width_mm, the length of sensor that the square's width spans.
    """

    columns = (
        *((name, pa.binary()) for name in ("jpeg", "mean", "std")),
        ("latent", pa.list_(pa.int32())),
        *((name, pa.int32()) for name in ("crop_top", "crop_left")),
        ("sensor_width_mm", pa.float64()),
    )

    def __init__(self, config: Curation, limits: dict[str, str]):
        super().__init__(config)
        self.limits, self.encode = limits, encoder(config)

    @classmethod
    def extra(cls, config: Curation, **more: Any) -> str:
        """The largest keys that are packed."""
        return digest(more["limits"])

    def early_verdict(self, row: dict[str, Any]) -> dict[str, Any] | None:
        if row["key"] > self.limits.get(row["set"], "g"):
            return dropped(f"more than the {self.config.pack.per_set} wanted for the {row['set']} set")
        return None

    def verdicts(self, rows: list[dict[str, Any]], pictures: list[Any]) -> list[dict[str, Any]]:
        side = self.config.pack.size_px
        squares = [square(picture, side) for picture in pictures]
        latents = self.encode(torch.stack([to_tensor(picture) for picture, _, _ in squares]))
        return [self._verdict(*each) for each in zip(rows, squares, *latents, strict=True)]

    def _verdict(
        self, row: dict[str, Any], cut: tuple[Any, tuple[int, int], float], mean: Tensor, std: Tensor
    ) -> dict[str, Any]:
        picture, (top, left), scale = cut
        # in px of the square: fx = focal · width / sensor
        sensor_mm = row["focal_mm"] * self.config.pack.size_px / (row["fx_px"] * scale)
        columns: dict[str, Any] = {"crop_top": top, "crop_left": left, "sensor_width_mm": sensor_mm}
        if self.config.pack.images:
            encoded = io.BytesIO()
            picture.save(encoded, "JPEG", quality=JPEG_QUALITY, subsampling=0)
            columns["jpeg"] = encoded.getvalue()
        halves = [tensor.half().contiguous() for tensor in (mean, std)]
        if not all(half.isfinite().all() for half in halves):
            return dropped("its latent is not finite in half precision", **columns)
        columns["mean"], columns["std"] = (half.numpy().tobytes() for half in halves)
        return kept(row["reason"], latent=list(mean.shape), **columns)


def encoder(config: Curation) -> Encode:
    """The autoencoder as a function of uint8 `(B, 3, H, W)`: mean and std of the latent, on the CPU, fp32."""
    from ..config.sections import Paths
    from ..networks.build import autoencoder

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        paths = Paths.model_validate({"source": config.pack.source, "vae": config.pack.vae})
        vae: Any = autoencoder(paths).to(device).eval()

    def encode(pictures: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            latents = vae.encode(pictures.to(device).float() / 127.5 - 1.0).latent_dist
            return latents.mean.float().cpu(), latents.std.float().cpu()

    return encode


def write_set(config: Curation, done: Done, name: str) -> None:
    """Put one set's samples into tars, in the order of the units; nothing is done where it is there already.

    A set that was made of other units is replaced.
    """
    path = Path(config.output) / name
    if path.is_dir() and read_manifest(path)["about"].get("units") == done.folder:
        return
    # beside the old one until it is whole
    fresh = path.with_name(f"{name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    settings = config.model_dump_json(exclude={"output", "photos", "report_samples"})
    about = {"units": done.folder, "settings": done.chain, "set": name, "curation": settings}
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
    if keys:
        fresh.rename(path)


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
    values = dict(row, camera=" ".join(filter(None, (row["make"], row["model"]))))
    further = {name: none if values.get(name) is None else values[name] for name, none in _FURTHER.items()}
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
