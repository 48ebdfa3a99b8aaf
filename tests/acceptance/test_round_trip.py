"""A shared picture is enough: its file brings the graph, the graph makes it again, and the EXIF says how.

That the editor takes the file when it is dropped is seen in tests/browser/test_save_photo.py.
"""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from lens_models.photo.exif import read_exif
from tools.workflow import Graph

pytestmark = pytest.mark.host

F_NUMBERS = (1.4, 4.0, 11.0)
FOCAL_MM, DISTANCE_M = 85.0, 2.0


def written(comfy, tmp_path, kind: str, lens: str) -> Graph:
    """A photo on a slope through a sweep of three apertures, saved as one file each."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    np.save(tmp_path / "depth.npy", np.linspace(1.0, 8.0, 48 * 64, dtype=np.float32).reshape(48, 64))
    photo, depth = (
        comfy.upload(tmp_path / name, f"{tmp_path.name}_{name}") for name in ("photo.png", "depth.npy")
    )
    g = Graph()
    camera = g(
        "FineDefocusCamera", aperture="free", f_number=2.8, focal_mm=FOCAL_MM, sensor="Full frame 36 × 24 mm",
        sensor_width_mm=36.0, sensor_height_mm=24.0, framing="crop to the picture",
    )  # fmt: skip
    cameras = g(
        "FineDefocusApertureSweep", camera=camera, sweep="list", start=1.8, end=22.0, step="1 stop",
        f_numbers=", ".join(map(str, F_NUMBERS)),
    )  # fmt: skip
    focus = g("FineDefocusFocusDistance", distance_m=DISTANCE_M, scale=1.0)
    blurred = g(
        lens, image=g("LoadImage", image=photo), focus=focus, camera=cameras, max_radius_px=64,
        depth=g("FineDefocusLoadDepth", file=depth, unit="metres", metres_per_unit=1.0, channel=""),
        depth_resampling="nearest (keeps edges)",
    )  # fmt: skip
    g(
        "FineDefocusSavePhoto", images=blurred, camera=cameras, focus=focus, format=kind, quality=100,
        values_in_name=True, filename_prefix=f"{tmp_path.name}/shared",
    )  # fmt: skip
    return g


def node(graph: dict, kind: str) -> tuple[str, dict]:
    """Id and inputs of the one node whose type ends like this."""
    ((node_id, spec),) = [(i, spec) for i, spec in graph.items() if spec["class_type"].endswith(kind)]
    return node_id, spec["inputs"]


def files(comfy, graph: dict) -> list[bytes]:
    """What a run saves; its lens has worked in this run."""
    entry = comfy.prompt(graph)
    events = entry["status"]["messages"]
    cached = {name for event, data in events if event == "execution_cached" for name in data["nodes"]}
    assert node(graph, "Lens")[0] not in cached
    return [comfy.view(image) for image in entry["outputs"][node(graph, "SavePhoto")[0]]["images"]]


def graph_in(content: bytes) -> dict:
    """The prompt where ComfyUI writes and reads it: a text of the PNG, or `prompt:` in a tag of the WebP."""
    image = Image.open(io.BytesIO(content))
    texts = [value for value in image.getexif().values() if isinstance(value, str)]
    texts = [image.text["prompt"]] if image.format == "PNG" else [t[7:] for t in texts if t[:7] == "prompt:"]
    (prompt,) = texts
    # what ComfyUI has noted on its way about changed input files is not the graph's
    graph = json.loads(prompt)
    return {node: {k: v for k, v in spec.items() if k != "is_changed"} for node, spec in graph.items()}


@pytest.mark.parametrize(
    ("kind", "lens"), [("PNG", "FineDefocusTAFLens"), ("WebP", "FineDefocusDrBokehLens")]
)
def test_a_shared_file_is_the_whole_recipe(comfy, tmp_path, kind, lens):
    graph = written(comfy, tmp_path, kind, lens)
    saved = files(comfy, graph)
    assert len(saved) == len(F_NUMBERS)
    for content, f_number in zip(saved, F_NUMBERS, strict=True):
        path = tmp_path / f"f{f_number}.{kind.lower()}"
        path.write_bytes(content)
        exif = read_exif(path)
        assert (exif.f_number, exif.focal_mm, exif.subject_distance_m) == (f_number, FOCAL_MM, DISTANCE_M)
        assert graph_in(content) == graph
    again = graph_in(saved[-1])
    # the same photo under another name: ComfyUI would answer from its cache
    node(again, "LoadImage")[1]["image"] = comfy.upload(tmp_path / "photo.png", f"{tmp_path.name}_again.png")
    for made, first in zip(files(comfy, again), saved, strict=True):
        ours, theirs = (np.asarray(Image.open(io.BytesIO(content))) for content in (made, first))
        assert ours.shape == (48, 64, 3)
        np.testing.assert_array_equal(ours, theirs)
