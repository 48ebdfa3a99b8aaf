"""Photos per second through the stages of a curation, and what 300 million would take.

    python benchmarks/curate.py                          # 2000 JPEGs of 1.5 megapixels, 2 workers of Ray
    python benchmarks/curate.py --photos 400 --workers 0 # in this process

The files were just written and are still in the system's cache: this is the cost of the program, not of a
disk. A stage is timed from when each worker could have finished its first unit, which leaves out their start.
Nothing is asserted here.
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
import time
from pathlib import Path

from measuring import options

from tests.training import curate_photos
from training.curate import blur, duplicates, exif, index, pack, rules
from training.curate.flow import Engine
from training.curate.options import Curation

MANY = 300_000_000
HOUR_S, TERA = 3600.0, 1e12
#: Each stage, and the share of all photos that reaches it, for the estimate only: the paper keeps 1 %.
STAGES = {
    "index": (index.run, 1.0),
    "exif": (exif.run, 1.0),
    "rules": (rules.run, 1.0),
    "duplicates": (duplicates.run, 0.25),
    "blur": (blur.run, 0.2),
    "pack": (pack.run, 0.01),
}
NETWORKS = ("blur", "pack")


def write_photos(folder: Path, count: int, size: tuple[int, int]) -> int:
    """Photos with EXIF that pass the rules, of 16 scenes and otherwise one comment apart; bytes of all."""
    bodies = []
    for k in range(16):
        encoded = io.BytesIO()
        header = curate_photos.exif(2.8 if k % 2 else 11.0, camera=k % 4)
        curate_photos.scene(k, *size).save(encoded, "JPEG", quality=90, exif=header)
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
    arguments = options(
        __doc__,
        photos=2000,
        workers=2,
        size={"default": (1500, 1000), "nargs": 2, "help": "width and height, px"},
        stages={"default": list(STAGES)[:-1], "choices": STAGES, "help": "in their order"},
        threads=1,
    )
    logging.basicConfig(level=logging.WARNING)
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
        hours = MANY * STAGES[stage][1] * workers / rate / HOUR_S
        print(f"300 million, {STAGES[stage][1]:.0%} in {stage}: {hours:,.0f} core hours (computed)")
    read = MANY * each / TERA
    print(f"reading them once for the hashes, at the size of these files: {read:,.0f} TB (computed)")
    print(json.dumps({stage: round(rate, 1) for stage, rate in measured.items()}))


def _config(photos: Path, output: Path) -> Curation:
    settings = {
        "photos": [str(photos)],
        "output": str(output),
        "unit_photos": 32,
        "rules": {"least_side_px": 48},
        # the scenes repeat, and all photos are to reach the later stages
        "duplicates": {"distance": 0, "least_contrast": 255.0},
        "blur": {"source": "tiny", "crop_px": 256},
        "pack": {"source": "tiny", "size_px": 512},
    }
    return Curation.model_validate(settings)


class _Clock:
    """Times at which units were finished."""

    def __init__(self) -> None:
        self.finished: list[tuple[float, int]] = []

    def reset(self, total: int) -> None:
        self.finished.clear()

    def update(self, n: int) -> None:
        if n:
            self.finished.append((time.perf_counter(), n))

    def rate(self, workers: int) -> float:
        """Photos per second, from when the first `workers` units were finished."""
        first, rest = self.finished[:workers], self.finished[workers:]
        return sum(photos for _, photos in rest) / (rest[-1][0] - first[-1][0])


def _run(config: Curation, engine: Engine, stages: list[str]) -> dict[str, float]:
    """Photos per second of each stage."""
    rates, done = {}, None
    for stage in stages:
        clock, before = _Clock(), done
        done = STAGES[stage][0](config, *([before] if before else []), engine, clock)
        rates[stage] = clock.rate(max(engine.workers, 1))
        if stage in NETWORKS:
            done = before  # an untrained network keeps photos at random
    return rates


if __name__ == "__main__":
    main()
