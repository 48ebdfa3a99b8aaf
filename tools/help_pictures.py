"""The pictures of the help pages, web/docs/*.webp: each a workflow run by the real ComfyUI.

`python dev.py pictures [NAME ...]` makes them anew, all or those named; every picture is a function of this
name in help_workflows.py, with the pack's Contact Sheet as its frame. They need no weights: depth is measured
(the demo photo) or synthetic.
"""

from __future__ import annotations

import io
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from . import motorcycle, provision, synthetic_scenes
from .help_workflows import PICTURES, Studio
from .server import Server, connect
from .synthetic_town import town

log = logging.getLogger("fine_defocus.pictures")

DOCS = provision.REPO / "web" / "docs"
#: A help page is read in a side panel, and every install of the pack carries them all.
WIDEST_PX, LARGEST_BYTES = 640, 25_000
QUALITIES = range(82, 20, -4)


def put(server: Server) -> None:
    """The photo, the synthetic scenes and label maps into ComfyUI's input folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [*motorcycle.write(folder), *synthetic_scenes.write(folder)]
        radiance, depth = town()
        Image.fromarray(synthetic_scenes.srgb(radiance)).save(folder / "town.png")
        np.save(folder / "town_depth.npy", depth.astype(np.float32))
        maps = label_maps(np.asarray(Image.open(folder / "sitter.png"))[..., :3])
        for stop, picture in zip(("narrow", "wide", "differ"), maps, strict=True):
            picture.save(folder / f"labels_{stop}.png")
        for path in (*files, *sorted(folder.glob("town*")), *sorted(folder.glob("labels_*"))):
            server.upload(path)


def label_maps(picture: np.ndarray) -> list[Image.Image]:
    """Labels as a segmentation paints them, one colour for each thing: a sitter, trees, the sky.

    For a narrow aperture, for a wide one at which some trees have become something else, as generators do it,
    and where the two differ.
    """
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    trees = np.minimum(np.hypot(x - 60, y - 180) / 190, np.hypot(x - 720, y - 150) / 200) < 1
    person = (np.hypot((x - 380) / 100, (y - 205) / 125) < 1) | (
        np.hypot((x - 380) / 235, (y - 560) / 205) < 1
    )
    narrow = np.select([person[..., None], trees[..., None]], [(232, 150, 90), (70, 140, 80)], (70, 90, 160))
    wide = np.where((trees & ~person & (x > 400))[..., None], (150, 110, 190), narrow)
    differ = np.where((narrow != wide).any(-1, keepdims=True), 255, 40).repeat(3, -1)
    return [Image.fromarray(labels.astype(np.uint8)) for labels in (narrow, wide, differ)]


def save(picture: Image.Image, path: Path) -> None:
    """As good as fits into the limit."""
    if picture.width > WIDEST_PX:
        height = round(picture.height * WIDEST_PX / picture.width)
        picture = picture.resize((WIDEST_PX, height), Image.Resampling.LANCZOS)
    for quality in QUALITIES:
        data = io.BytesIO()
        picture.save(data, "WEBP", quality=quality, method=6)
        if data.tell() <= LARGEST_BYTES:
            path.write_bytes(data.getvalue())
            log.info("%s: %d × %d px, %d bytes, quality %d", path.name, *picture.size, data.tell(), quality)
            return
    raise SystemExit(f"{path.name} has {data.tell()} bytes even at the lowest quality: make it smaller.")


def main(names: list[str]) -> None:
    unknown = set(names) - set(PICTURES)
    if unknown:
        raise SystemExit(f"no picture is named {', '.join(sorted(unknown))}; there are {', '.join(PICTURES)}")
    with connect(provision.host) as server:
        put(server)
        info = server.object_info()
        for name in names or PICTURES:
            studio = Studio(info, server)
            preview = studio("PreviewImage", images=PICTURES[name](studio))[0]
            (image,) = server.prompt(studio, timeout=1800)["outputs"][preview]["images"]
            save(Image.open(io.BytesIO(server.view(image))).convert("RGB"), DOCS / f"{name}.webp")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    main(sys.argv[1:])
