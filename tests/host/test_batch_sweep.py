"""Batches of pictures, distances and apertures in the real server: made, rendered, laid out, saved."""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from lens_models.photo.exif import read_exif
from tools import provision
from tools.provision import REPO
from tools.server import HostError
from tools.workflow import Graph

pytestmark = pytest.mark.host

INSIDE = Path(__file__).with_name("inside_batch.py")
WIDTH, HEIGHT = 96, 64
CAMERA = {
    "aperture": "free", "f_number": 2.0, "focal_mm": 85.0, "sensor": "Full frame 36 × 24 mm",
    "sensor_width_mm": 36.0, "sensor_height_mm": 24.0, "framing": "crop to the picture",
}  # fmt: skip
LENS = {"max_radius_px": 32, "depth_resampling": "nearest (keeps edges)"}
LIST = {"sweep": "list", "near_m": 1.0, "far_m": 4.0, "count": 5}
SHEET = {"columns": 0, "picture_width": 0, "text_size": 0, "labels": "", "arrangement": "rows and columns"}


class Bench(Graph):
    """Pictures of grey noise before depth that grows to the right, and a run's texts, pictures and files."""

    def __init__(self, comfy, tmp_path):
        super().__init__()
        self.comfy, self.tmp_path = comfy, tmp_path

    def photo(self, seed=0, coarse=1):
        grey = np.random.default_rng(seed).integers(40, 220, (HEIGHT // coarse, WIDTH // coarse, 1), np.uint8)
        noise = grey.repeat(coarse, 0).repeat(coarse, 1).repeat(3, 2)
        path = self.tmp_path / f"photo{seed}.png"
        Image.fromarray(noise).save(path)
        return self("LoadImage", image=self.comfy.upload(path, f"{self.tmp_path.name}_{path.name}"))

    def depth(self):
        path = self.tmp_path / "depth.npy"
        np.save(path, np.tile(np.linspace(1.0, 6.0, WIDTH, dtype=np.float32), (HEIGHT, 1)))
        file = self.comfy.upload(path, f"{self.tmp_path.name}_{path.name}")
        return self("FineDefocusLoadDepth", file=file, unit="metres", metres_per_unit=1.0, channel="")

    def apertures(self, text):
        camera = self("FineDefocusCamera", **CAMERA)
        return self(
            "FineDefocusApertureSweep", camera=camera, sweep="list", start=1.8, end=22.0, step="1 stop",
            f_numbers=text,
        )  # fmt: skip

    def distances(self, text):
        return self("FineDefocusFocusSweep", distances_m=text, **LIST)

    def batch(self, image=None, f_numbers="2, 4, 8", distances_m="1.5, 3", order="every combination"):
        return self(
            "FineDefocusBatchSweep", image=image or self.photo(), depth=self.depth(), order=order,
            camera=self.apertures(f_numbers), focus=self.distances(distances_m),
        )  # fmt: skip

    def rendered(self, batch, node="FineDefocusTAFLens"):
        return self(node, image=batch, depth=batch.out(1), camera=batch.out(2), focus=batch.out(3), **LENS)

    def sheet(self, images, batch, **values):
        made = {"images": images, "camera": batch.out(2), "focus": batch.out(3)}
        return self("FineDefocusContactSheet", **{**made, **SHEET, **values})

    def run(self):
        return self.comfy.prompt(self)["outputs"]

    def view(self, file):
        return np.asarray(Image.open(io.BytesIO(self.comfy.view(file))).convert("RGB")).astype(int)


@pytest.fixture
def bench(comfy, tmp_path):
    return Bench(comfy, tmp_path)


@pytest.fixture(scope="module")
def inside():
    host = provision.host()
    env = {**os.environ, "PYTHONPATH": str(host.shim or "")}
    arguments = [str(host.python), str(INSIDE), str(REPO)]
    ran = subprocess.run(arguments, cwd=host.checkout, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def test_a_focus_sweep_says_what_it_made(bench):
    steps = bench("FineDefocusFocusSweep", **{**LIST, "sweep": "from near to far"}, distances_m="")
    listed = bench.distances("0.8 m, 1.5, ∞")
    counts = [bench("PreviewAny", source=sweep.out(1)) for sweep in (steps, listed)]
    outputs = bench.run()
    # even in 1/distance: 1, 13/16, 10/16, 7/16, 4/16
    assert outputs[steps[0]]["text"] == ["5 × 1 m  1.23 m  1.6 m  2.29 m  4 m"]
    assert outputs[listed[0]]["text"] == ["3 × 80 cm  1.5 m  ∞"]
    assert [outputs[count[0]]["text"] for count in counts] == [["5"], ["3"]]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"distances_m": "1, near"}, r'"near" \(item 2\) is not a distance'),
        ({"distances_m": "0"}, "greater than 0 m"),
        ({"distances_m": " "}, "The list of distances is empty"),
    ],
)
def test_distances_that_are_none(bench, values, said):
    sweep = bench("FineDefocusFocusSweep", **{**LIST, **values})
    bench("PreviewAny", source=sweep.out(1))
    with pytest.raises(HostError, match=said):
        bench.run()


def test_a_batch_says_what_it_combines_and_names_its_items(bench):
    both = bench("ImageBatch", image1=bench.photo(0), image2=bench.photo(1))
    batch = bench.batch(both, "2, 4", "1.5, inf")
    labels = bench("PreviewAny", source=batch.out(4))
    count = bench("PreviewAny", source=batch.out(5))
    aside = bench.batch(both, "2, 4", "1.5", order="side by side")
    few = bench("PreviewAny", source=aside.out(4))
    outputs = bench.run()
    assert outputs[batch[0]]["text"] == ["2 pictures × 2 distances × 2 apertures = 8"]
    assert outputs[count[0]]["text"] == ["8"]
    assert outputs[labels[0]]["text"][0].split("\n") == [
        f"picture {p}   f/{n}   {d}" for p in (1, 2) for d in ("1.5 m", "∞") for n in (2, 4)
    ]
    assert outputs[aside[0]]["text"] == ["2 side by side: 2 pictures, 1 distance, 2 apertures"]
    assert outputs[few[0]]["text"] == ["picture 1   f/2\npicture 2   f/4"]


def test_side_by_side_of_different_numbers_is_refused(bench):
    bench("PreviewAny", source=bench.batch(order="side by side").out(5))
    with pytest.raises(HostError, match=r"2 distances do not go with 3 apertures.*'every combination'"):
        bench.run()


@pytest.mark.parametrize("node", ["FineDefocusTAFLens", "FineDefocusDrBokehLens"])
def test_every_item_is_the_picture_with_its_settings(bench, node):
    batch = bench.batch()
    shown = bench("PreviewImage", images=bench.rendered(batch, node))
    image, depth = bench.photo(), bench.depth()
    apart = [
        bench(
            "PreviewImage",
            images=bench(
                node, image=image, depth=depth, camera=bench.apertures("2, 4, 8"),
                focus=bench("FineDefocusFocusDistance", distance_m=metres, scale=1.0), **LENS,
            ),
        )
        for metres in (1.5, 3.0)
    ]  # fmt: skip
    outputs = bench.run()
    frames = [bench.view(file) for file in outputs[shown[0]]["images"]]
    wanted = [bench.view(file) for one in apart for file in outputs[one[0]]["images"]]
    assert len(frames) == 6
    np.testing.assert_array_equal(frames, wanted)


def test_the_sheet_has_apertures_across_and_distances_down(bench):
    batch = bench.batch()
    images = bench.rendered(batch)
    frames = bench("PreviewImage", images=images)
    laid = bench("PreviewImage", images=bench.sheet(images, batch))
    outputs = bench.run()
    (sheet,) = (bench.view(file) for file in outputs[laid[0]]["images"])
    corners = []
    for file in outputs[frames[0]]["images"]:
        frame = bench.view(file)
        starts = np.argwhere((sheet == frame[0, 0]).all(-1)).tolist()
        (corner,) = [(y, x) for y, x in starts if np.array_equal(sheet[y : y + HEIGHT, x : x + WIDTH], frame)]
        corners.append(corner)
    rows, columns = ([corner[k] for corner in corners] for k in (0, 1))
    assert rows == rows[:1] * 3 + rows[3:4] * 3
    assert rows[0] < rows[3]
    assert columns[:3] == columns[3:] == sorted(set(columns))
    ink = sheet.max(-1) > 190
    assert ink[rows[0] : rows[0] + HEIGHT, : columns[0]].any()
    assert ink[rows[3] : rows[3] + HEIGHT, : columns[0]].any()
    assert all(ink[: rows[0], x : x + WIDTH].any() for x in columns[:3])


def test_a_batch_that_is_no_table_is_refused_with_both_numbers(bench):
    batch = bench.batch(f_numbers="2, 4, 8", distances_m="1, 2, 3", order="side by side")
    bench("PreviewImage", images=bench.sheet(bench.rendered(batch), batch))
    with pytest.raises(HostError, match="3 apertures and 3 distances change together in these 3 pictures"):
        bench.run()


def test_files_are_named_after_their_items(bench, comfy, tmp_path):
    both = bench("ImageBatch", image1=bench.photo(0), image2=bench.photo(1))
    batch = bench.batch(both, "2.8, 11", "1.5, inf")
    saved = bench(
        "FineDefocusSavePhoto", images=bench.rendered(batch), camera=batch.out(2), focus=batch.out(3),
        filename_prefix=f"{tmp_path.name}/b", format="PNG", quality=92, values_in_name=True,
    )  # fmt: skip
    files = bench.run()[saved[0]]["images"]
    assert [file["filename"] for file in files] == [
        f"b_f{n}_{d}_0000{p}_.png" for p in (1, 2) for d in ("1.5m", "infinity") for n in ("2.8", "11")
    ]
    (tmp_path / "one.png").write_bytes(comfy.view(files[3]))
    assert read_exif(tmp_path / "one.png").f_number == 11.0


def test_core_savers_make_moving_pictures_of_a_batch(bench, tmp_path):
    import cv2

    # large patches and large steps, which the loss of a video codec does not hide
    batch = bench.batch(bench.photo(coarse=8), f_numbers="1, 2, 4", distances_m="1, 6")
    images = bench.rendered(batch)
    frames = bench("PreviewImage", images=images)
    webp = bench(
        "SaveAnimatedWEBP", images=images, filename_prefix=f"{tmp_path.name}/w", fps=6.0, lossless=True,
        quality=100, method="fastest",
    )  # fmt: skip
    video = bench("CreateVideo", images=images, fps=6.0)
    video = bench("SaveVideo", video=video, filename_prefix=f"{tmp_path.name}/v", format="auto", codec="auto")
    outputs = bench.run()
    wanted = np.stack([bench.view(file) for file in outputs[frames[0]]["images"]])
    assert len(wanted) == 6

    (file,) = outputs[webp[0]]["images"]
    animated = Image.open(io.BytesIO(bench.comfy.view(file)))
    moved = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(animated)]
    np.testing.assert_array_equal(moved, wanted)

    (file,) = outputs[video[0]]["images"]
    (tmp_path / "clip.mp4").write_bytes(bench.comfy.view(file))
    clip = cv2.VideoCapture(str(tmp_path / "clip.mp4"))
    filmed = []
    while (read := clip.read())[0]:
        filmed.append(read[1][..., ::-1].astype(int))
    assert len(filmed) == 6
    # a video is lossy: each frame is nearer to its own picture than to any other
    apart = np.abs(np.stack(filmed)[:, None] - wanted[None]).mean(axis=(2, 3, 4))
    assert apart.argmin(axis=1).tolist() == list(range(6))


# ------------------------------------------------------------------------------- in the host's Python


def test_layers_are_found_once_per_picture_and_distance(inside):
    found = inside["product"]
    assert isinstance(found, dict), found
    assert found["splits"] == 2 * 2
    assert found["pictures"] == found["count"] == 2 * 2 * 3
    # bit for bit what a run of its own per picture and distance gives: picture, CoC, overlay
    assert found["same"] == [True] * 3
    assert found["first layers"]


def test_layers_are_found_again_only_where_something_changes(inside):
    found = inside["repeated"]
    assert isinstance(found, dict), found
    assert {name: case["splits"] for name, case in found.items()} == {
        "once": 1,
        "repeated": 1,
        "expanded": 1,
        "another mask": 2,
        "there and back": 3,
        "other pictures": 4,
    }
    assert {name for name, case in found.items() if case["same"]} == {"once", "repeated", "expanded"}


@pytest.mark.parametrize("lens", ["TAFLensNode", "DrBokehLensNode"])
def test_what_is_held_beside_the_result_does_not_grow_with_the_batch(inside, lens):
    found = inside["memory"]
    assert isinstance(found, dict), found
    one_picture = 40 * 64 * 3 * 4
    # a picture per item would be 96 more of them
    assert found[f"{lens} 100"] <= found[f"{lens} 4"] + one_picture


def test_a_batch_goes_on_on_the_cpu_with_layers_found_there(inside):
    found = inside["out_of_memory"]
    assert isinstance(found, dict), found
    # three cameras, of which the second runs out of memory; then the second and the third
    assert found["calls"] == [3, 2]
    assert found["warnings"] == ["The GPU ran out of memory, so the rest was rendered on the CPU."]
