"""The generator in the real server: its templates, its three kinds of file, a LoRA, a ControlNet.

A toy SDXL with random weights stands under the public names (toy_sdxl.py), so the pictures mean nothing;
every loader, sampler and node between prompt and sheet is the real one.
"""

from __future__ import annotations

import io
import json
import os
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from host.toys import SIDE_PX, small, toy_host
from tools.provision import REPO
from tools.workflow import Graph, to_prompt

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif("COMFYUI_URL" in os.environ, reason="needs a models folder and nodes of its own"),
]

TEMPLATES = ("text_to_bokeh", "text_to_bokeh_lora", "text_to_bokeh_controlnet")
assert sorted(TEMPLATES) == sorted(p.stem for p in (REPO / "example_workflows").glob("text_to_*.json"))
LOADER, SAMPLER, DECODED, SHEET = "2", "5", "7", "15"
LORA, UNET, BASE = (
    "loras/dmd2_sdxl_4step_lora_fp16.safetensors",
    "diffusion_models/dmd2_sdxl_4step_unet_fp16.safetensors",
    "sd_xl_base_1.0.safetensors",
)


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    with toy_host(tmp_path_factory.mktemp("toys")) as server:
        yield server


def shown(server, entry: dict, node: str) -> list[np.ndarray]:
    """A node's pictures, 0..1."""
    images = entry["outputs"][node]["images"]
    return [np.asarray(Image.open(io.BytesIO(server.view(i))).convert("RGB"), float) / 255 for i in images]


@pytest.fixture(scope="module")
def run(toys):
    """A template's prompt and history entry, run once."""
    done = {}

    def look_up(name: str) -> tuple[dict, dict]:
        if name not in done:
            workflow = json.loads((REPO / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
            prompt = to_prompt(small(workflow), toys.object_info())
            done[name] = prompt, toys.prompt(prompt)
        return done[name]

    return look_up


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_runs_as_it_is_shared(toys, run, name):
    prompt, entry = run(name)
    texts = {node: output["text"] for node, output in entry["outputs"].items() if "text" in output}
    assert "4-step" in texts[LOADER][0]
    assert "CC BY-NC 4.0, non-commercial" in texts[LOADER][0]
    assert len(texts[LOADER]) == 1, "nothing of the file was left out"
    assert texts[SAMPLER] == ["4 steps at 999, 749, 499, 249"]
    (picture,) = shown(toys, entry, DECODED)
    assert picture.shape == (SIDE_PX, SIDE_PX, 3)
    assert 0.05 < picture.std() < 0.5
    (sheet,) = shown(toys, entry, SHEET)
    assert sheet.shape[0] > 2 * SIDE_PX - 1
    assert sheet.shape[1] > 2 * SIDE_PX - 1
    assert prompt[LOADER]["inputs"] == {"file": LORA, "base": BASE}


def test_a_style_and_a_layout_change_the_picture(toys, run):
    plain, styled, laid_out = (shown(toys, run(name)[1], DECODED)[0] for name in TEMPLATES)
    assert np.abs(styled - plain).mean() > 0.01
    assert np.abs(laid_out - plain).mean() > 0.01


def picture_of(server, graph: Graph, model, clip, vae, prompt="a fox", seed=3, cameras=None):
    """AIF picture of a graph's model; the decoded picture's link."""
    text = graph("CLIPTextEncode", text=prompt, clip=clip)
    empty = graph("EmptyLatentImage", width=SIDE_PX, height=SIDE_PX, batch_size=1)
    made = graph(
        "FineDefocusAIFSampler", model=model, positive=text, latent=empty, seed=seed, steps="4", start_step=0
    )
    return graph("VAEDecode", samples=made, vae=vae)


def generated(server, file: str, base: str = "none", parts=None, **options):
    """What Load AIF Generator says of a file, and its picture; `parts`: a checkpoint for CLIP and VAE."""
    graph = Graph()
    loaded = graph("FineDefocusLoadAIFGenerator", file=file, base=base)
    rest = graph("CheckpointLoaderSimple", ckpt_name=parts) if parts else loaded
    image = picture_of(server, graph, loaded, rest.out(1), rest.out(2), **options)
    saved = graph("PreviewImage", images=image)
    entry = server.prompt(graph)
    return entry["outputs"][loaded[0]]["text"], shown(server, entry, saved[0])[0]


def test_the_same_network_from_each_kind_of_file(toys):
    said, from_checkpoint = generated(toys, f"checkpoints/{BASE}")
    assert len(said) == 1, "CLIP and VAE are in the checkpoint"
    said, from_unet = generated(toys, UNET, BASE)
    assert len(said) == 1
    said, alone = generated(toys, UNET, parts=BASE)
    assert "no CLIP and VAE" in said[1]
    said, with_lora = generated(toys, LORA, BASE)
    assert len(said) == 1
    # the same weights and noise in the same server; 8 bits
    np.testing.assert_allclose(from_unet, from_checkpoint, rtol=0, atol=1 / 255)
    np.testing.assert_allclose(alone, from_checkpoint, rtol=0, atol=1 / 255)
    assert np.abs(with_lora - from_checkpoint).mean() > 0.01
    _, other_prompt = generated(toys, UNET, BASE, prompt="a castle in the clouds")
    _, other_seed = generated(toys, UNET, BASE, seed=4)
    assert np.abs(other_prompt - from_unet).mean() > 1e-3
    assert np.abs(other_seed - from_unet).mean() > 0.01


def test_from_a_prompt_to_saved_files_that_sharpen_with_the_f_number(toys, tmp_path):
    Image.linear_gradient("L").resize((SIDE_PX, SIDE_PX)).save(tmp_path / "ramp.png")
    graph = Graph()
    loaded = graph("FineDefocusLoadAIFGenerator", file=LORA, base=BASE)
    image = picture_of(toys, graph, loaded, loaded.out(1), loaded.out(2))
    ramp = graph("LoadImage", image=toys.upload(tmp_path / "ramp.png"))
    metres = graph(
        "FineDefocusDepthFromImage", image=ramp, convention="near is bright", near_m=1.0, far_m=6.0,
        spacing="inverse depth",
    )  # fmt: skip
    focus = graph("FineDefocusFocusDistance", distance_m=2.0, scale=1.0)
    camera = graph(
        "FineDefocusCamera", aperture="free", f_number=2.8, focal_mm=85.0, sensor="Full frame 36 × 24 mm",
        sensor_width_mm=36.0, sensor_height_mm=24.0, framing="crop to the picture",
    )  # fmt: skip
    sweep = graph(
        "FineDefocusApertureSweep", camera=camera, sweep="list", start=1.8, end=22.0, step="1 stop",
        f_numbers="1.8, 4, 16",
    )  # fmt: skip
    bokeh = graph(
        "FineDefocusTAFLens", image=image, depth=metres, focus=focus, camera=sweep, max_radius_px=64,
        depth_resampling="nearest (keeps edges)", highlight_recovery=0.0,
    )  # fmt: skip
    saved = graph("SaveImage", images=bokeh, filename_prefix="toy")
    pictures = shown(toys, toys.prompt(graph), saved[0])
    assert len(pictures) == 3
    sharpness = [np.abs(np.diff(picture, axis=1)).mean() for picture in pictures]
    assert all(wide < 0.9 * narrow for wide, narrow in pairwise(sharpness))
