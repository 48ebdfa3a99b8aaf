"""The workflows people open first, run by the real server on the real photo."""

from __future__ import annotations

import io
import json
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from host.toys import write_depth_weights
from tools import motorcycle
from tools.provision import REPO
from tools.server import PACK
from tools.workflow import to_prompt

pytestmark = pytest.mark.host

EXAMPLES = sorted((REPO / "example_workflows").glob("*.json"))
#: Those that make their picture need a generator's files: tests/host/test_generate_server.py runs them.
FROM_A_PHOTO = [path for path in EXAMPLES if not path.stem.startswith("text_to_")]
SWEEP = REPO / "example_workflows" / "aperture_sweep_photo.json"
PHOTO, DEPTH, LENS, SAVED = "1", "2", "6", "8"
FOCUS_M = 2.35


def pictures(comfy, entry: dict, node_id: str) -> list[np.ndarray]:
    images = entry["outputs"][node_id]["images"]
    return [np.asarray(Image.open(io.BytesIO(comfy.view(i))).convert("RGB"), np.float64) for i in images]


def found(picture: np.ndarray, sheet: np.ndarray) -> tuple[int, int]:
    """Row and column of the one place on the sheet where a picture's middle row stands, pixel by pixel."""
    middle = picture.shape[0] // 2
    row = picture[middle]
    firsts = np.argwhere((sheet[:, : sheet.shape[1] - len(row) + 1] == row[0]).all(-1))
    ((y, x),) = [(y, x) for y, x in firsts if np.array_equal(sheet[y, x : x + len(row)], row)]
    return int(y) - middle, int(x)


def detail(picture: np.ndarray, where: np.ndarray) -> float:
    """Energy of the differences between neighbours, of those pixels."""
    grey = picture.mean(axis=-1)
    dy, dx = np.diff(grey, axis=0)[:, :-1], np.diff(grey, axis=1)[:-1]
    return float((dx**2 + dy**2)[where[:-1, :-1]].mean())


@pytest.fixture(scope="module")
def swept(comfy, tmp_path_factory):
    """The example's history entry, with the lens's own pictures shown as well."""
    prompt = to_prompt(json.loads(SWEEP.read_text(encoding="utf-8")), comfy.object_info())
    # Under names of its own, so that nothing is cached and every node says what it has to say.
    photo, depth = motorcycle.write(tmp_path_factory.mktemp("swept"))
    prompt[PHOTO]["inputs"]["image"] = comfy.upload(photo, "swept.png")
    prompt[DEPTH]["inputs"]["file"] = comfy.upload(depth, "swept_depth.png")
    prompt["frames"] = {"class_type": "PreviewImage", "inputs": {"images": [LENS, 0]}}
    return comfy.prompt(prompt)


@pytest.fixture(scope="module")
def depth_weights(comfy):
    """A tiny untrained network for the examples that measure depth."""
    if not getattr(comfy, "base", None):
        pytest.skip("the models folder of the ComfyUI at COMFYUI_URL is not ours to write")
    write_depth_weights(comfy.base)


@pytest.mark.parametrize("example", FROM_A_PHOTO, ids=lambda path: path.stem)
def test_an_example_runs(comfy, photo, scenes, depth_weights, example):
    entry = comfy.prompt(to_prompt(json.loads(example.read_text(encoding="utf-8")), comfy.object_info()))
    assert any(output.get("images") for output in entry["outputs"].values())


def test_the_blur_grows_stop_by_stop_and_the_subject_stays(comfy, swept):
    frames = pictures(comfy, swept, "frames")
    photo, depth = motorcycle.load()
    assert len(frames) == 8
    assert {frame.shape for frame in frames} == {photo.shape}

    background = [detail(frame, depth > 3.2) for frame in frames]
    assert all(wide < narrow for wide, narrow in pairwise(background))
    assert background[0] < 0.15 * background[-1]
    subject = np.abs(depth - FOCUS_M) < 0.02
    assert detail(frames[0], subject) > 0.9 * detail(photo.astype(np.float64), subject)
    # Blurring moves light, it does not add or tint it.
    linear = [(((frame / 255 + 0.055) / 1.055) ** 2.4).mean(axis=(0, 1)) for frame in frames]
    np.testing.assert_allclose(linear[0], linear[-1], rtol=0.02)


def test_the_sheet_holds_the_eight_in_order(comfy, swept):
    frames = pictures(comfy, swept, "frames")
    (sheet,) = pictures(comfy, swept, SAVED)
    height, width = frames[0].shape[:2]
    places = [found(frame, sheet) for frame in frames]
    assert places == sorted(places)
    assert len({y for y, _ in places}) == 2
    for (y, x), frame in zip(places, frames, strict=True):
        np.testing.assert_array_equal(sheet[y : y + height, x : x + width], frame)


def test_what_was_missing_in_the_depth_is_said(swept):
    _, depth = motorcycle.load()
    (text,) = swept["outputs"][DEPTH]["text"]
    share = f"{100 * np.isnan(depth).mean():.1f}"
    assert re.search(rf"{re.escape(share)} ?% had no measurement", text)


def test_the_templates_browser_is_given_them(comfy):
    served = comfy.get("/api/workflow_templates")
    assert sorted(served[PACK]) == [path.stem for path in EXAMPLES]
    for path in EXAMPLES:
        assert comfy.get(f"/api/workflow_templates/{PACK}/{path.name}")["nodes"]
        thumbnail = comfy.request(f"/api/workflow_templates/{PACK}/{path.stem}.jpg")
        assert Image.open(io.BytesIO(thumbnail)).format == "JPEG"
