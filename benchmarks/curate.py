"""Photos per second through the stages of a curation, and what 300 million would take.

    python benchmarks/curate.py                          # 2000 JPEGs of 1.5 megapixels, 2 workers of Ray
    python benchmarks/curate.py --photos 400 --workers 0 # in this process

Files were just written, so that the system still has them in memory: this is the cost of the program and not
of a disk. A stage is timed from the moment when each worker could have ended its first unit: the starting of
processes is left out. Nothing is asserted here.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from tests.training.curate_photos import exif, scene
from training.curate.blur import classify_blur
from training.curate.duplicates import drop_duplicates
from training.curate.exif import read_headers
from training.curate.flow import Engine
from training.curate.index import index_photos
from training.curate.options import Curation
from training.curate.pack import pack_sets
from training.curate.rules import apply_rules

MANY = 300_000_000
HOUR_S, TERA = 3600.0, 1e12
#: Shares that go on to the later stages, for the estimate only: the paper keeps 3 of 300 million in all.
LEFT = {"index": 1.0, "exif": 1.0, "rules": 1.0, "duplicates": 0.25, "blur": 0.2, "pack": 0.01}
STAGES = {
    "index": index_photos,
    "exif": read_headers,
    "rules": apply_rules,
    "duplicates": drop_duplicates,
    "blur": classify_blur,
    "pack": pack_sets,
}
NETWORKS = ("blur", "pack")


def write_photos(folder: Path, count: int, size: tuple[int, int]) -> int:
    """Photos with EXIF that pass the rules, of 16 scenes and otherwise one comment apart; bytes of all."""
    bodies = []
    for k in range(16):
        encoded = io.BytesIO()
        scene(k, *size).save(encoded, "JPEG", quality=90, exif=exif(2.8 if k % 2 else 11.0, camera=k % 4))
        bodies.append(encoded.getvalue())
    folder.mkdir(parents=True)
    total = 0
    for number in range(count):
        body, comment = bodies[number % len(bodies)], f"{number:08d}".encode()
        content = body[:2] + b"\xff\xfe\x00\x0a" + comment + body[2:]
        (folder / f"{number:06d}.jpg").write_bytes(content)
        total += len(content)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=(1500, 1000), help="width and height, px")
    default = [stage for stage in STAGES if stage != "pack"]
    parser.add_argument("--stages", nargs="*", default=default, choices=STAGES, help="in their order")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    engine = Engine(arguments.workers)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        size = write_photos(root / "photos", arguments.photos, tuple(arguments.size))
        each = size / arguments.photos
        print(f"{arguments.photos} photos of {each / 1e6:.2f} MB, {arguments.workers} workers")
        measured = _run(_config(root / "photos", root / "out"), engine, arguments.stages)
    for stage, rate in measured.items():
        note = " (an untrained tiny network: the cost of decoding and cutting)" if stage in NETWORKS else ""
        print(f"{stage:11s} {rate:8.1f} photos/s{note}")
    if {"index", "exif"} <= measured.keys():
        both = 1.0 / (1.0 / measured["index"] + 1.0 / measured["exif"])
        print(f"headers: index and exif together {both:.1f} photos/s")
    workers = max(arguments.workers, 1)
    for stage, rate in measured.items():
        hours = MANY * LEFT[stage] * workers / rate / HOUR_S
        print(f"300 million, {LEFT[stage]:.0%} in {stage}: {hours:,.0f} core hours (computed)")
    read = MANY * each / TERA
    print(f"reading them once for the hashes, at the size of these files: {read:,.0f} TB (computed)")
    print(json.dumps({stage: round(rate, 1) for stage, rate in measured.items()}))


def _config(photos: Path, output: Path) -> Curation:
    return Curation.model_validate(
        {
            "photos": [str(photos)],
            "output": str(output),
            "unit_photos": 32,
            "rules": {"least_side_px": 48},
            # the scenes repeat, and all photos are to reach the later stages
            "duplicates": {"distance": 0, "least_contrast": 255.0},
            "blur": {"source": "tiny", "crop_px": 256},
            "pack": {"source": "tiny", "size_px": 512},
        }
    )


class _Clock:
    """Notes when units are done."""

    def __init__(self) -> None:
        self.notes: list[tuple[float, int]] = []

    def reset(self, total: int) -> None:
        """Nothing is done yet."""
        self.notes.clear()

    def update(self, n: int) -> None:
        """A unit is done."""
        if n:
            self.notes.append((time.perf_counter(), n))

    def rate(self, workers: int) -> float:
        """Photos per second, from when the first `workers` units were done."""
        first, rest = self.notes[:workers], self.notes[workers:]
        return sum(photos for _, photos in rest) / (rest[-1][0] - first[-1][0])


def _run(config: Curation, engine: Engine, stages: list[str]) -> dict[str, float]:
    """Photos per second of each stage."""
    found, done = {}, None
    for stage in stages:
        clock, before = _Clock(), done
        done = STAGES[stage](config, *([before] if before else []), engine, clock)
        found[stage] = clock.rate(max(engine.workers, 1))
        if stage in NETWORKS:
            done = before  # an untrained network's verdicts mean nothing
    return found


if __name__ == "__main__":
    main()
