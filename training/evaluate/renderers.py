"""The lenses alone: real sharp photos with depth take the generator's place, and only the blur is judged."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lens_models import Camera, Focus
from lens_models.depth.convert import fill_missing
from lens_models.depth.files import read_depth_file
from lens_models.light import srgb_to_linear
from lens_models.stops import label

from ..images import photos_in, read_srgb, save_sheet
from .methods import LENSES, Pictures
from .options import Evaluation
from .table import NO_WEIGHTS, growing, listed, markdown_table, mean_of_samples, with_interval, write_report

log = logging.getLogger("fine_defocus")
DEPTHS = (".npy", ".npz", ".exr", ".pfm")
TITLES = {"taf": "TAF Lens", "dr_bokeh": "Dr.Bokeh Lens"}
#: What a depth file may have behind its photo's name.
_ENDINGS = ("", "_depth")
_COLUMNS = {
    "energy_linear": "linear light, energy",
    "energy_linear_mean_removed": "linear light, mean removed",
    "energy_srgb": "sRGB values, energy",
    "energy_srgb_mean_removed": "sRGB values, mean removed",
}


@dataclass(frozen=True, eq=False)
class Sharp:
    """Sharp linear light `(1, 3, H, W)`; depth `(1, H, W)`, m; focus_m: the median depth where None."""

    name: str
    linear: Tensor
    depth_m: Tensor
    focus_m: float | None = None
    focal_mm: float | None = None

    @property
    def focus(self) -> float:
        """Where the lens is focused, m."""
        if self.focus_m is not None:
            return self.focus_m
        finite = self.depth_m[torch.isfinite(self.depth_m)]
        return float(finite.median()) if finite.numel() else math.inf


def photos(folder: str | Path) -> Iterator[Sharp]:
    """Pictures of a folder with NAME.npy, .npz, .exr or .pfm (or NAME_depth.*) beside them, metres.

    Depth that is 0, negative or NaN is taken from its neighbours; +inf is sky. Pictures without depth are
    named in the log. Raises ValueError for sizes that differ, and where there is no pair.
    """
    folder, count = Path(folder), 0
    for path in photos_in(folder):
        beside = [folder / f"{path.stem}{end}{kind}" for end in _ENDINGS for kind in DEPTHS]
        file = next((p for p in beside if p.is_file()), None)
        if file is None:
            log.warning("%s has no depth beside it (%s) and is left out", path.name, ", ".join(DEPTHS))
            continue
        srgb = read_srgb(path)
        metres = (read_pfm(file) if file.suffix == ".pfm" else read_depth_file(file).values)[:1].float()
        if metres.shape[-2:] != srgb.shape[-2:]:
            (h, w), (dh, dw) = srgb.shape[-2:], metres.shape[-2:]
            raise ValueError(f"{path.name} is {w} × {h} px and {file.name} {dw} × {dh}: give one size.")
        count += 1
        yield Sharp(path.stem, srgb_to_linear(srgb), fill_missing(metres, (metres > 0) & ~metres.isnan()))
    if not count:
        raise ValueError(f"{folder} has no picture with depth in metres beside it ({', '.join(DEPTHS)}).")


def read_pfm(path: Path) -> Tensor:
    """A grey .pfm as `(1, H, W)` float32, first line on top. Raises ValueError for another kind of file."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return torch.from_numpy(np.array(picture, dtype=np.float32))[None]
    except OSError as error:
        raise ValueError(f"{path.name} is no grey float map, or damaged: {error}") from error


def render(sharp: Sharp, lens: str, config: Evaluation) -> Pictures:
    """The sweep of a picture."""
    camera = Camera(torch.tensor(config.f_numbers), sharp.focal_mm or config.focal_mm, config.sensor_mm)
    scene, cap = (sharp.linear, sharp.depth_m, Focus(sharp.focus), camera), config.max_radius_px
    linear = LENSES[lens](*scene, max_radius_px=cap)
    return Pictures(linear, sharp.focus, 1.0)


@torch.no_grad()
def judge(
    scenes: Iterable[Sharp], config: Evaluation, out: str | Path, lenses: Sequence[str] = tuple(LENSES)
) -> dict[str, Any]:
    """Measure all scenes through all lenses; gives what OUT/renderers.json holds, beside .md and sheets."""
    from .measures import Meters

    meters, out, samples = Meters(config.metrics), Path(out), []
    for sharp in scenes:
        rows = []
        for lens in lenses:
            found = render(sharp, lens, config)
            row = {"scene": sharp.name, "lens": lens, **meters.sweep(found, config.f_numbers)}
            samples.append(row)
            rows.append([picture[None] for picture in found.srgb])
            shares = {c: growing(row[c]) for c in _COLUMNS}
            log.info("%s, %s: %s", sharp.name, TITLES[lens], ", ".join(f"{v:.0%}" for v in shares.values()))
        labels = [[f"{TITLES[lens]}   {label(n)}" for n in config.f_numbers] for lens in lenses]
        title = f"{sharp.name}, focus {sharp.focus:.3g} m"
        save_sheet(out / "sheets" / f"{sharp.name}.png", rows, labels, title=title, picture_width=384)
    found = {
        "f_numbers": list(config.f_numbers),
        "confidence": config.confidence,
        "lenses": {lens: _summed(config, [s for s in samples if s["lens"] == lens]) for lens in lenses},
        "samples": samples,
    }
    write_report(found, markdown(found), out / "renderers.md")
    return found


def _summed(config: Evaluation, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = (*_COLUMNS, "lpips", "consistency_adjacent")
    columns = {name: mean_of_samples(config, samples, name) for name in names}
    return {"scenes": len(samples), "columns": columns}


def markdown(found: Mapping[str, Any]) -> str:
    """The table for people."""
    monotonicity = (f"monotonicity %: {column}" for column in _COLUMNS.values())
    headings = ["lens", "scenes", *monotonicity, "LPIPS", "consistency %"]
    means, scenes = [], []
    for lens, row in found["lenses"].items():
        cells = [
            with_interval(column or {"why_not": NO_WEIGHTS}, 4 if name == "lpips" else 2)
            for name, column in row["columns"].items()
        ]
        means.append([TITLES[lens], str(row["scenes"]), *cells])
    for s in found["samples"]:
        shares = (f"{100 * growing(s[c]):.2f}" for c in _COLUMNS)
        scenes.append([s["scene"], TITLES[s["lens"]], f"{s['focus_m']:.3g}", *shares])
    lines = [
        "# Renderers alone",
        "",
        *markdown_table(headings, means),
        "",
        f"The lenses alone on sharp pictures with depth, over {listed(found['f_numbers'])}.",
        "",
        *markdown_table(["scene", "lens", "focus m", *_COLUMNS.values()], scenes),
    ]
    return "\n".join(lines) + (
        "\n\nEnergy is Σ v² of values neither rounded nor clipped. A blur of linear light with "
        "one kernel cannot add to it. The same blur raises the mean of sRGB values, whose curve is concave, "
        "so the sRGB column can fall while the picture gets sharper.\n"
    )
