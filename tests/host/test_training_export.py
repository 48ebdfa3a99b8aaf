"""What the training exports, in ComfyUI: the loaders' own code on files of `training.export.export`.

Tiny networks with random weights; see inside_training_export.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lens_models.focus.predictor import FocusPredictor, load_predictor, save_predictor
from lens_models.focus.vst.network import VisualSaliencyTransformer, VSTConfig
from lens_models.generator.exif_embedding import ExifEmbedding, head_tensors
from tools import provision
from tools.provision import REPO
from training.export.export import export_state, read_state

pytestmark = pytest.mark.host

INSIDE = Path(__file__).parent / "inside_training_export.py"
FIXTURE = REPO / "tests" / "fixtures" / "dmd2"
LAYERS = ("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.resnets.0.conv1")
RANK, ALPHA = 2, 3.0
VST = VSTConfig(
    image_px=32, width=16, heads=1, token_width=8, backbone_depth=1, mutual_depth=1, token_depth=1,
    decoder_depth=1, features=8, classes=0,
)  # fmt: skip


def lora_and_merged(generator):
    """A LoRA by peft's names, and the generator with alpha / rank · up · down added to its layers."""
    g, made, merged = torch.Generator().manual_seed(0), {}, dict(generator)
    for layer in LAYERS:
        weight = generator[f"{layer}.weight"]
        out, *rest = weight.shape
        down = torch.randn(RANK, *rest, generator=g) / 4
        up = torch.randn(out, RANK, *(1 for _ in rest[1:]), generator=g) / 4
        made |= {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
        change = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        merged[f"{layer}.weight"] = weight + ALPHA / RANK * change
    return made, merged


def predictor():
    torch.manual_seed(1)
    made = FocusPredictor(VisualSaliencyTransformer(VST), token="1/8", polarity="near is dark")
    torch.nn.init.normal_(made.scale_head.weight, std=0.1)
    return made


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A training's state, exported; and what the host's answers are compared with."""
    folder = tmp_path_factory.mktemp("export")
    state = folder / "state"
    state.mkdir()
    generator = load_file(FIXTURE / "diffusion_pytorch_model.safetensors")
    lora, merged = lora_and_merged(generator)
    torch.manual_seed(0)
    head = ExifEmbedding(128)
    torch.nn.init.normal_(head.linear_2.weight, std=0.1)
    save_file(generator, state / "generator.safetensors")
    save_file(lora, state / "lora.safetensors")
    save_file(head_tensors(head), state / "exif.safetensors")
    save_predictor(state / "focus.safetensors", predictor())
    shutil.copy(FIXTURE / "config.json", state)
    (state / "state.json").write_text(json.dumps({"stage": "2", "step": 500, "lora_alpha": ALPHA}))
    export_state(read_state(state), folder / "out", dtype="fp32")
    save_file(merged, folder / "merged.safetensors")
    g = torch.Generator().manual_seed(2)
    image, metres = torch.rand(1, 48, 64, 3, generator=g), 1 + 4 * torch.rand(1, 48, 64, generator=g)
    with torch.no_grad():
        focus, saliency = load_predictor(folder / "out" / "vst_focus.safetensors")(
            image.permute(0, 3, 1, 2), metres
        )
    seen = {
        "image": image, "metres": metres, "saliency": saliency, "distance": focus.distance_m,
        "scale": focus.scale,
    }  # fmt: skip
    save_file({name: tensor.contiguous() for name, tensor in seen.items()}, folder / "seen.safetensors")
    return folder


@pytest.fixture(scope="module")
def answers(work):
    host = provision.host()
    env = {**os.environ, "PYTHONPATH": str(host.shim or "")}
    arguments = [str(host.python), str(INSIDE), str(REPO), str(work)]
    ran = subprocess.run(arguments, cwd=host.checkout, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def test_the_generator_is_loaded_with_its_card_and_head(answers):
    found = answers["generator"]
    assert found["text"][0] == (
        "dof_sdxl_4step_fp32.safetensors: 4-step, licence: CreativeML Open RAIL++-M (derived from SDXL); "
        "EXIF head"
    )
    assert (found["timesteps"], found["stage"]) == ([999, 749, 499, 249], "2")
    # rounding of float32 over a network of 328 tensors
    assert found["published"] <= 1e-6
    assert found["told"] > 1e-3


def test_the_lora_is_what_was_trained(answers):
    """ComfyUI finds both layers by their names and adds alpha / rank of them."""
    found = answers["lora"]
    assert found["layers"] == len(LAYERS)
    assert found["text"][0] == (
        "dof_sdxl_4step_lora.safetensors: 4-step, licence: CreativeML Open RAIL++-M (derived from SDXL)"
    )
    assert not any("are left out" in line for line in found["text"])
    # ComfyUI multiplies alpha, up and down in another order, in float32
    assert found["by hand"] <= 1e-5 < 1e-2 < found["changed"]


def test_predict_focus_takes_the_predictor(answers, work):
    found, seen = answers["focus"], load_file(work / "seen.safetensors")
    assert "vst_focus.safetensors" in found["files"]
    assert len(found["loaded"]) == 1  # no note: the file says everything
    assert "by model" in found["said"][0]
    # the node's picture goes to linear light and back, which is the only difference
    assert found["distance"] == pytest.approx(seen["distance"].item(), rel=1e-4)
    assert found["scale"] == pytest.approx(seen["scale"].item(), rel=1e-4)
    assert found["saliency"] <= 1e-4
    assert abs(found["scale"] - 1) > 1e-3  # the trained head, not a fresh one
