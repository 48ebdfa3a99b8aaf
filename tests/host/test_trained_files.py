"""From synthetic pictures to a picture in ComfyUI: both stages of training, the export, and the real server.

The networks are tiny and know nothing, so the picture means nothing; every step between is the real one.
"""

from __future__ import annotations

import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from host.toys import SIDE_PX, toy_host
from host.trained import STEPS, train
from tools.workflow import Graph

pytestmark = [
    pytest.mark.host,
    pytest.mark.slow,
    pytest.mark.skipif("COMFYUI_URL" in os.environ, reason="needs a models folder and nodes of its own"),
]

BASE, DEPTH = "sd_xl_base_1.0.safetensors", "metric_depth_vit_small_800k.pth"
GENERATOR, FOCUS = "dof_sdxl_4step_fp16.safetensors", "vst_focus.safetensors"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run's folder, beside its exported files in `out`."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder)
    return folder


@pytest.fixture(scope="module")
def entry(run, tmp_path_factory):
    """The history of a prompt that generates with the one file and focuses with the other."""
    base = tmp_path_factory.mktemp("host")
    for name, folder in ((GENERATOR, "diffusion_models"), (FOCUS, "focus")):
        (base / "models" / folder).mkdir(parents=True)
        shutil.copy(run / "out" / name, base / "models" / folder / name)
    with toy_host(base) as server:
        graph = Graph()
        loaded = graph("FineDefocusLoadAIFGenerator", file=f"diffusion_models/{GENERATOR}", base=BASE)
        text = graph("CLIPTextEncode", text="a red disc before a blue wall", clip=loaded.out(1))
        empty = graph("EmptyLatentImage", width=SIDE_PX, height=SIDE_PX, batch_size=1)
        latent = graph(
            "FineDefocusAIFSampler",
            model=loaded,
            positive=text,
            latent=empty,
            seed=1,
            steps="4",
            start_step=0,
        )
        image = graph("VAEDecode", samples=latent, vae=loaded.out(2))
        network = graph("FineDefocusLoadDepthModel", file=DEPTH, precision="automatic")
        depth = graph(
            "FineDefocusEstimateDepth", image=image, depth_model=network, canvas="automatic", sky_m=200.0,
            steady_scale=False, guided=False,
        )  # fmt: skip
        predictor = graph("FineDefocusLoadFocusModel", file=FOCUS)
        focus = graph(
            "FineDefocusPredictFocus", image=image, depth=depth, strategy="weighted mean", scale=0.0,
            smooth_frames=0.0, focus_model=predictor,
        )  # fmt: skip
        camera = graph(
            "FineDefocusCamera", aperture="free", f_number=1.8, focal_mm=85.0, sensor="Full frame 36 × 24 mm",
            sensor_width_mm=36.0, sensor_height_mm=24.0, framing="crop to the picture",
        )  # fmt: skip
        lens = graph(
            "FineDefocusTAFLens", image=image, depth=depth, focus=focus, camera=camera, max_radius_px=64,
            depth_resampling="nearest (keeps edges)", highlight_recovery=0.0,
        )  # fmt: skip
        saved = graph("SaveImage", images=lens, filename_prefix="trained")
        found = server.prompt(graph)
        (picture,) = found["outputs"][saved[0]]["images"]
        pixels = np.asarray(Image.open(io.BytesIO(server.view(picture))).convert("RGB"), float) / 255
        texts = {name: found["outputs"][node[0]]["text"] for name, node in (
            ("generator", loaded), ("sampler", latent), ("predictor", predictor), ("focus", focus),
        )}  # fmt: skip
        return texts, pixels


def test_the_log_has_a_line_for_every_step(run):
    for stage in ("stage1", "stage2"):
        lines = [json.loads(line) for line in (run / stage / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if line["event"] == "step"] == list(range(STEPS))
    assert any("huber" in line for line in lines), "the last generator's turn was a shallow one"


def test_the_generator_is_taken_with_nothing_left_out(entry):
    texts, _ = entry
    assert texts["generator"][0].startswith(f"{GENERATOR}: 4-step, licence: CreativeML Open RAIL++-M")
    assert len(texts["generator"]) == 1
    assert texts["sampler"] == ["4 steps at 999, 749, 499, 249"]


def test_the_focus_predictor_is_taken_and_asked(entry):
    texts, _ = entry
    assert texts["predictor"][0].startswith(f"{FOCUS}: ")
    assert len(texts["predictor"]) == 1, "the file says everything itself"
    assert "by model" in texts["focus"][0]


def test_a_picture_comes_out(entry):
    _, picture = entry
    assert picture.shape == (SIDE_PX, SIDE_PX, 3)
    assert np.isfinite(picture).all()
    assert 0.02 < picture.std() < 0.5
