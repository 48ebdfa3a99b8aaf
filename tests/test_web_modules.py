"""The browser's pure modules under Node's own test runner, against figures of the core."""

import json
import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from lens_models import Camera, Focus, coc_px, stops
from lens_models.camera import sharp_limits_m
from lens_models.disc import levels_of
from lens_models.focus.point import f_number_for_range, range_focus_m
from lens_models.show.overlay import acceptable_coc_px

REPO = Path(__file__).resolve().parents[1]
CAMERAS = (Camera(1.4, 135.0, 35.57), Camera(2.8, 50.0, 24.0), Camera(16.0, 24.0, 36.0))
DISTANCES, SIZES = (0.2, 2.35, 30.0), ((741, 500), (4000, 6000))
ENDS = ((1.0, 1.1), (2.2, 4.7), (9000.0, 3.0))
DEPTHS = (0.4, 1.0, 2.35, 4.7, 60.0, math.inf)


def node() -> str:
    path = shutil.which("node")
    if not path:
        pytest.skip("no Node.js on this machine: the browser's pure modules are not tested")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < (20, 10):
        pytest.skip(f"Node.js {version.strip()} is too old to test the browser's modules: 20.10 is needed")
    return path


def as_dict(camera: Camera) -> dict:
    return {name: getattr(camera, name) for name in ("f_number", "focal_mm", "sensor_mm")}


def finite(values) -> list:
    """JSON has no infinity."""
    return [value if math.isfinite(value) else None for value in values]


def optics(camera: Camera, distance: float, width: int, height: int) -> dict:
    focus, sharp = Focus(distance), acceptable_coc_px(width, height)
    depth = torch.tensor([[DEPTHS]], dtype=torch.float64)
    return {
        "camera": as_dict(camera), "distance": distance, "width": width, "height": height, "sharp": sharp,
        "depths": finite(DEPTHS), "coc": coc_px(depth, focus, camera, width).flatten().tolist(),
        "limits": finite(limit.item() for limit in sharp_limits_m(focus, camera, width, sharp)),
    }  # fmt: skip


def ranges(camera: Camera, ends: tuple[float, float], width: int) -> dict:
    middle = range_focus_m(*torch.tensor(ends, dtype=torch.float64)).item()
    return {
        "camera": as_dict(camera), "ends": ends, "width": width, "sharp": 1.0, "distance": middle,
        "f_number": f_number_for_range(*ends, camera, width, 1.0),
    }  # fmt: skip


def core() -> dict:
    """What the twin of the optics must agree with."""
    levels = levels_of(32)
    return {
        "optics": [optics(c, d, *s) for c in CAMERAS for d in DISTANCES for s in SIZES],
        "ranges": [ranges(c, ends, 768) for c in CAMERAS for ends in ENDS],
        "disc": {name: getattr(levels, name).tolist() for name in ("size", "total", "variance")},
        "stops": list(stops.THIRD_STOPS),
    }


def test_the_pure_modules(tmp_path):
    figures = tmp_path / "core.json"
    figures.write_text(json.dumps(core()))
    tests = sorted(str(path) for path in (REPO / "tests" / "web").glob("*.test.mjs"))
    assert tests
    ran = subprocess.run(
        # the modules end in .js, which Node without a package.json takes for its own old kind
        [node(), "--experimental-default-type=module", "--test", *tests],
        env={**os.environ, "FINE_DEFOCUS_CORE": str(figures)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_module_is_said_to_be_pure_or_is_not():
    """What says "No DOM" touches none, and so runs in the tests above."""
    for path in (REPO / "web" / "js" / "focus").glob("*.js"):
        code = path.read_text(encoding="utf-8")
        if "No DOM." in code.splitlines()[0]:
            assert not re.search(r"\b(document|window|globalThis|app)\b\.", code), path.name
