"""Focus that is found, masked or moved, in the real server, on the real photo."""

from __future__ import annotations

import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tools.provision import REPO
from tools.server import HostError
from tools.workflow import Graph

pytestmark = pytest.mark.host

TINY = REPO / "tests" / "fixtures" / "vst" / "state_dict.safetensors"
CAMERA = {
    "aperture": "free", "f_number": 2.0, "focal_mm": 85.0, "sensor": "Full frame 36 × 24 mm",
    "sensor_width_mm": 36.0, "sensor_height_mm": 24.0, "framing": "crop to the picture",
}  # fmt: skip


class Studio(Graph):
    """The motorcycle with its depth, and what is needed around a focus node."""

    def __init__(self, comfy, photo):
        super().__init__()
        self.comfy = comfy
        self.image = self("LoadImage", image=photo[0])
        self.depth = self(
            "FineDefocusLoadDepth", file=photo[1], unit="millimetres", metres_per_unit=0.001, channel=""
        )

    def predict(self, **settings):
        values = {"strategy": "weighted mean", "scale": 0.0, "smooth_frames": 0.0, **settings}
        return self("FineDefocusPredictFocus", **{"image": self.image, "depth": self.depth, **values})

    def solid(self, value, width=741, height=500):
        return self("SolidMask", value=value, width=width, height=height)

    def rack(self, **settings):
        values = {"frames": 4, "keyframes": "0: 2\n-1: 4", "easing": "even", "scale": 1.0, **settings}
        return self("FineDefocusRackFocus", **values)

    def taf(self, focus, image=None):
        return self(
            "FineDefocusTAFLens", image=image or self.image, depth=self.depth, focus=focus,
            camera=self("FineDefocusCamera", **CAMERA), max_radius_px=64,
            depth_resampling="nearest (keeps edges)",
        )  # fmt: skip

    def run(self, **shown):
        nodes = {name: self("PreviewImage", images=link)[0] for name, link in shown.items()}
        outputs = self.comfy.prompt(self)["outputs"]
        pictures = {}
        for name, node in nodes.items():
            files = [io.BytesIO(self.comfy.view(i)) for i in outputs[node]["images"]]
            pictures[name] = np.stack([np.asarray(Image.open(f).convert("RGB")).astype(int) for f in files])
        return pictures, {node: o["text"] for node, o in outputs.items() if "text" in o}


@pytest.fixture
def studio(comfy, photo):
    return Studio(comfy, photo)


@pytest.mark.parametrize("strategy", ["weighted mean", "median of the most salient region"])
def test_the_guess_lands_on_the_motorcycle(studio, strategy):
    focus = studio.predict(strategy=strategy)
    _, texts = studio.run(overlay=focus.out(4))
    (text,) = texts[focus[0]]
    metres = float(re.match(r"([\d.]+) m by guess from contrast$", text)[1])
    assert 2.2 <= metres <= 2.7


def test_a_distance_is_a_float_and_saliency_a_mask(studio):
    focus = studio.predict()
    again = studio("FineDefocusFocusFromMask", depth=studio.depth, mask=focus.out(3), how="median",
                   percentile=25.0, smooth_frames=0.0)  # fmt: skip
    by_float, by_socket = studio.taf(focus.out(1)), studio.taf(focus)
    pictures, texts = studio.run(a=by_float, b=by_socket, c=studio.taf(again))
    np.testing.assert_array_equal(pictures["a"], pictures["b"])
    assert 2.2 <= float(texts[again[0]][0].split()[0]) <= 2.7


@pytest.fixture
def models(comfy):
    """The folder of focus models, empty before and after."""
    base = getattr(comfy, "base", None)
    if base is None:
        pytest.skip("the models folder of the ComfyUI at COMFYUI_URL is not ours to write")
    folder = base / "models" / "focus"
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    for file in folder.iterdir():
        file.unlink()


def test_a_model_of_ours_and_one_of_somebody_else(studio, comfy, models):
    shutil.copy(TINY, models / "tiny_vst.safetensors")
    (models / "half.safetensors").write_bytes(TINY.read_bytes()[:100_000])
    loaded = studio("FineDefocusLoadFocusModel", file="tiny_vst.safetensors")
    focus = studio.predict(focus_model=loaded)
    _, texts = studio.run(overlay=focus.out(4))
    assert "saliency network alone" in texts[loaded[0]][1]
    assert "by model" in texts[focus[0]][0]
    metres = float(texts[focus[0]][0].split()[0])
    assert 2.11 <= metres <= 5.02  # untrained, but a mean of the scene's distances

    broken = Graph()
    broken("PreviewAny", source=broken("FineDefocusLoadFocusModel", file="half.safetensors"))
    with pytest.raises(HostError, match="incomplete or damaged"):
        comfy.prompt(broken)


def test_frames_of_a_clip_are_calmed(studio):
    """The second frame sees its saliency elsewhere; smoothing brings its distance to its neighbours'."""
    photo = studio.image
    upside_down = studio("ImageRotate", image=photo, rotation="180 degrees")
    clip = photo
    for frame in (upside_down, photo):
        clip = studio("ImageBatch", image1=clip, image2=frame)
    ways = [studio.predict(image=clip, smooth_frames=frames, scale=1.5) for frames in (0.0, 2.0)]
    _, texts = studio.run(**{f"overlay{i}": way.out(4) for i, way in enumerate(ways)})
    shaky, calm = (texts[way[0]][0] for way in ways)
    spread = []
    for text in (shaky, calm):
        near, far = map(float, re.match(r"3 × focus, ([\d.]+) m to ([\d.]+) m", text).groups())
        spread.append(far - near)
    assert spread[1] < 0.7 * spread[0]


def test_masks(studio):
    left = studio.solid(1.0, 40, 30)
    found = studio("FineDefocusFocusFromMask", depth=studio.depth, mask=left, how="nearest",
                   percentile=25.0, smooth_frames=0.0)  # fmt: skip
    empty = studio("FineDefocusFocusFromMask", depth=studio.depth, mask=studio.solid(0.0), how="median",
                   percentile=25.0, smooth_frames=0.0)  # fmt: skip
    _, texts = studio.run(a=studio.taf(found), b=studio.taf(empty))
    assert texts[found[0]][0] == "2.11 m"
    assert texts[empty[0]][0] == "2.11 m"
    assert "the mask covers nothing" in texts[empty[0]][1].lower()


def test_a_rack_begins_and_ends_where_its_keyframes_are(studio, comfy, photo):
    rack = studio.rack(focus_a=studio("FineDefocusFocusDistance", distance_m=2.3, scale=1.0),
                       keyframes="0: A\n3: 4.5")  # fmt: skip
    pictures, texts = studio.run(clip=studio.taf(rack))
    assert texts[rack[0]] == ["4 frames   0: 2.3 m   3: 4.5 m"]
    one = Studio(comfy, photo)
    ends, _ = one.run(
        a=one.taf(one("FineDefocusFocusDistance", distance_m=2.3, scale=1.0)),
        b=one.taf(one("FineDefocusFocusDistance", distance_m=4.5, scale=1.0)),
    )
    np.testing.assert_array_equal(pictures["clip"][0], ends["a"][0])
    np.testing.assert_array_equal(pictures["clip"][-1], ends["b"][0])


@pytest.mark.parametrize(
    ("keyframes", "said"),
    [
        ("later: 2", "is not a keyframe"),
        ("0: B", "neither metres nor a connected focus"),
        ("", "no keyframes"),
    ],
)
def test_bad_keyframes(studio, keyframes, said):
    with pytest.raises(HostError, match=said):
        studio.run(clip=studio.taf(studio.rack(keyframes=keyframes)))


def test_the_overlay_says_the_limits(studio):
    camera = studio("FineDefocusCamera", **CAMERA)
    overlay = studio(
        "FineDefocusFocusOverlay", image=studio.image, depth=studio.depth, camera=camera, sharp_px=0.0,
        focus=studio("FineDefocusFocusDistance", distance_m=2.4, scale=1.0),
    )  # fmt: skip
    pictures, texts = studio.run(overlay=overlay)
    near, far = (
        float(v) for v in re.search(r"sharp ([\d.]+) m to ([\d.]+) m", texts[overlay[0]][0]).groups()
    )
    assert 2.2 < near < 2.4 < far < 2.6
    # f²/(N c) + f by hand, c = 1 px of a picture that spans 24 mm · 741/500 = 35.57 mm of the sensor
    assert "hyperfocal 75.3 m" in texts[overlay[0]][0]
    assert pictures["overlay"].shape == (1, 500, 741, 3)


def test_no_model_in_the_folder_is_a_sentence(comfy, models):
    g = Graph()
    g("PreviewAny", source=g("FineDefocusLoadFocusModel", file="no file in models/focus yet"))
    with pytest.raises(HostError, match="no focus model in models/focus"):
        comfy.prompt(g)
