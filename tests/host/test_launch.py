"""The options that people start ComfyUI with: the same pictures come out.

Options of the CPU run in the real server. Those of a GPU's memory (--gpu-only, --highvram, --lowvram,
--novram) exclude --cpu, so ComfyUI's own rules for them run on a pretended GPU: where tensors are is checked,
speed and memory are not.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from host.pretend_gpu import DEVICE, PretendGPU
from host.toys import write_depth_weights
from lens_models.metrics.lpips import LPIPS
from tools import provision
from tools.provision import REPO
from tools.server import ComfyHost
from tools.workflow import Graph

FOCUS_WEIGHTS = REPO / "tests" / "fixtures" / "vst" / "state_dict.safetensors"
HALF = ("--fp16-intermediates", "--cache-none", "--preview-method", "latent2rgb", "--disable-smart-memory")
FAST = ("--fast", "--cache-lru", "2", "--deterministic", "--force-channels-last", "--disable-metadata")
#: float16 holds a picture's value to a 16th of one of 255 steps: rounding to 8 bits may fall the other way.
MOST_STEPS = {HALF: 1, FAST: 0}
#: A network of random weights answers a little differently to a picture that is rounded to float16.
NETWORKS, MOST_STEPS_OF_A_NETWORK = {"saliency", "normals"}, {HALF: 8, FAST: 0}


def write_scene(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (56, 80, 3)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "photo.png")
    np.save(folder / "depth.npy", np.linspace(1.0, 8.0, 56 * 80, dtype=np.float32).reshape(56, 80))


def session() -> tuple[Graph, dict[str, str]]:
    """From a photo to bokeh: the graph, and what shows a picture by name."""
    g = Graph()
    image = g("LoadImage", image="photo.png")
    depth = g("FineDefocusLoadDepth", file="depth.npy", unit="metres", metres_per_unit=1.0, channel="")
    network = g("FineDefocusLoadDepthModel", file="metric_depth_vit_small_800k.pth", precision="automatic")
    measured = g(
        "FineDefocusEstimateDepth", image=image, depth_model=network, canvas="automatic", sky_m=200.0,
        steady_scale=False, guided=False,
    )  # fmt: skip
    found = g(
        "FineDefocusPredictFocus", image=image, depth=depth, strategy="weighted mean", scale=0.0,
        smooth_frames=0.0, focus_model=g("FineDefocusLoadFocusModel", file=FOCUS_WEIGHTS.name),
    )  # fmt: skip
    camera = g(
        "FineDefocusCamera", aperture="free", f_number=1.4, focal_mm=85.0, sensor="Full frame 36 × 24 mm",
        sensor_width_mm=36.0, sensor_height_mm=24.0, framing="crop to the picture",
    )  # fmt: skip
    cameras = g(
        "FineDefocusApertureSweep", camera=camera, sweep="list", start=1.8, end=22.0, step="1 stop",
        f_numbers="1.4, 4, 11",
    )  # fmt: skip
    scene = {
        "image": image, "depth": depth, "focus": 2.0, "camera": cameras, "max_radius_px": 64,
        "depth_resampling": "bilinear",
    }  # fmt: skip
    taf, bokeh = g("FineDefocusTAFLens", **scene), g("FineDefocusDrBokehLens", **scene)
    sheet = g(
        "FineDefocusContactSheet", images=bokeh, columns=0, picture_width=0, text_size=0, labels="",
        camera=cameras, focus=2.0,
    )  # fmt: skip
    overlay = g("FineDefocusFocusOverlay", image=image, depth=depth, focus=found, camera=camera, sharp_px=0.0)
    preview = g("FineDefocusDepthPreview", depth=depth, near_m=0.0, far_m=0.0, legend=True)
    shown = {
        "TAF Lens": taf, "Dr.Bokeh Lens": bokeh, "layers": bokeh.out(3), "Contact Sheet": sheet,
        "Focus Overlay": overlay, "Depth Preview": preview, "saliency": found.out(4),
        "normals": measured.out(2),
    }  # fmt: skip
    nodes = {name: g("PreviewImage", images=link)[0] for name, link in shown.items()}
    nodes["Save Photo"] = g(
        "FineDefocusSavePhoto", images=taf, camera=cameras, focus=2.0, format="PNG", quality=95,
        values_in_name=True, filename_prefix="photo",
    )[0]  # fmt: skip
    return g, nodes


def taken(base: Path, options: tuple[str, ...]) -> tuple[dict[str, list[Image.Image]], str]:
    """The pictures of a session on a server with these options, and what the log says of it."""
    write_depth_weights(base)
    (base / "models" / "focus").mkdir()
    shutil.copy(FOCUS_WEIGHTS, base / "models" / "focus")
    (base / "input").mkdir()
    write_scene(base / "input")
    graph, nodes = session()
    with ComfyHost(provision.host(), base, options) as comfy:
        outputs = comfy.prompt(graph)["outputs"]
        files = {name: [comfy.view(i) for i in outputs[node]["images"]] for name, node in nodes.items()}
        log = comfy.log_text().partition("Starting server")[2]
    return {name: [Image.open(io.BytesIO(f)) for f in some] for name, some in files.items()}, log


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return taken(tmp_path_factory.mktemp("plain"), ())


@pytest.mark.host
@pytest.mark.parametrize("options", [HALF, FAST], ids=" ".join)
def test_the_pictures_are_those_without_the_options(plain, options, tmp_path):
    pictures, log = taken(tmp_path, options)
    expected, _ = plain
    assert pictures.keys() == expected.keys()
    for name, some in pictures.items():
        most = (MOST_STEPS_OF_A_NETWORK if name in NETWORKS else MOST_STEPS)[options]
        assert len(some) == len(expected[name])
        for picture, wanted in zip(some, expected[name], strict=True):
            ours, theirs = (np.asarray(p.convert("RGB")).astype(int) for p in (picture, wanted))
            assert ours.shape == theirs.shape
            assert np.abs(ours - theirs).max() <= most, name
    written = "--disable-metadata" not in options
    for saved in pictures["Save Photo"]:
        assert ("prompt" in saved.info, bool(saved.getexif())) == (written, written)
    assert "Traceback" not in log
    assert [line for line in log.splitlines() if "Warning:" in line] == []


# ------------------------------------------------------------------------------- memory of a GPU
@pytest.fixture(scope="module")
def on_a_gpu(tmp_path_factory):
    work = tmp_path_factory.mktemp("gpu")
    write_scene(work)
    write_depth_weights(work)
    shutil.copy(work / "models/geometry_estimation/metric_depth_vit_small_800k.pth", work / "depth.pth")
    shutil.copy(FOCUS_WEIGHTS, work / "focus.safetensors")
    torch.manual_seed(0)
    state = LPIPS().eval().state_dict()
    torch.save({k: v for k, v in state.items() if k.startswith("features")}, work / "trunk.pth")
    torch.save({k: v.abs() for k, v in state.items() if k.startswith("lin")}, work / "heads.pth")
    host = provision.host()
    env = {**os.environ, "PYTHONPATH": str(host.shim or "")}
    arguments = [str(host.python), str(Path(__file__).with_name("inside_gpu.py")), str(REPO), str(work)]
    ran = subprocess.run(arguments, cwd=host.checkout, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.host
@pytest.mark.parametrize(
    "option", ["on the CPU", "--gpu-only", "--highvram", "plain", "--lowvram", "--novram"]
)
def test_every_node_runs_and_leaves_its_pictures_where_comfyui_wants_them(on_a_gpu, option):
    assert {step: wrong for step, wrong in on_a_gpu["told"][option].items() if wrong} == {}


@pytest.mark.host
def test_no_node_was_left_out(on_a_gpu):
    assert on_a_gpu["untried"] == []


def test_the_pretended_gpu_refuses_what_a_gpu_refuses():
    with torch.no_grad(), PretendGPU():
        there, here = torch.ones(2, 3, device=DEVICE), torch.ones(2, 3)
        with pytest.raises(RuntimeError, match="same device"):
            there + here
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        layer = torch.nn.Linear(3, 2)
        with pytest.raises(RuntimeError, match="same device"):
            layer(there)
        assert layer.to(DEVICE)(there).device == DEVICE
        assert torch.equal((there + here.to(DEVICE)).cpu(), 2 * here)
        assert torch.tensor([1.0, 2.0], device=DEVICE).tolist() == [1.0, 2.0]
        wave = torch.complex(here, here).to(DEVICE)
        assert torch.equal((wave.conj() * wave).cpu(), torch.full((2, 3), 2.0 + 0.0j))
