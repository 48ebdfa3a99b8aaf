"""The same rows from files: what is written in the layouts people have gives the pictures it was made of."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from lens_models import Camera
from lens_models.depth.metric3d.network import load_metric3d
from lens_models.focus.predictor import save_predictor
from training.evaluate import networks as networks_module
from training.evaluate.methods import TABLE1
from training.evaluate.networks import NetworkCache
from training.evaluate.options import Evaluation, load_evaluation
from training.export.export import TrainedWeights
from training.networks.text import build_text

RANK, ALPHA = 2, 4.0


@pytest.fixture(scope="module")
def tiny():
    return NetworkCache(load_evaluation("tiny"), "cpu")


@pytest.fixture(scope="module")
def files(tiny, tmp_path_factory):
    """The tiny networks in SDXL's and SD 2.1's layouts, and the config that names them."""
    folder = tmp_path_factory.mktemp("weights")
    text, base, sd21 = build_text(tiny._training_config()), folder / "sdxl", folder / "sd21"
    tiny.sdxl().save_pretrained(base / "unet")
    tiny._vae().save_pretrained(base / "vae")
    for part, what in (("tokenizer", text.tokenizers[0]), ("tokenizer_2", text.tokenizers[1])):
        what.save_pretrained(base / part)
    text.first.save_pretrained(base / "text_encoder")
    text.second.save_pretrained(base / "text_encoder_2")
    depth = {name: tensor.clone() for name, tensor in tiny._depth().state_dict().items()}
    save_file(depth, folder / "depth.safetensors")
    save_predictor(folder / "focus.safetensors", tiny.focus(None))
    tiny.controlnet().save_pretrained(folder / "controlnet")
    tiny.student("stage1").unet.save_pretrained(folder / "stage1")
    tokens = tiny.camera_tokens()
    tokens.unet.save_pretrained(sd21 / "unet")
    tokens.vae.save_pretrained(sd21 / "vae")
    tokens.tokenizer.save_pretrained(sd21 / "tokenizer")
    tokens.encoder.save_pretrained(sd21 / "text_encoder")
    save_file(tokens.tokens.state_dict(), folder / "tokens.safetensors")
    layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    width = tokens.unet.get_submodule(layer).weight.shape
    lora = {f"{layer}.lora_A.weight": torch.ones(RANK, width[1])}
    save_file(lora | {f"{layer}.lora_B.weight": torch.zeros(width[0], RANK)}, folder / "lora.safetensors")
    given = {
        **load_evaluation("tiny").model_dump(),
        "source": "files",
        "base": str(base),
        "depth": str(folder / "depth.safetensors"),
        "focus": str(folder / "focus.safetensors"),
        "controlnet": str(folder / "controlnet"),
        "students": {
            "stage1": {"generator": str(folder / "stage1")},
            "exif_embedding": {"generator": "runs/exif"},
            "ours": {"generator": "runs/ours", "focus": "runs/ours"},
            "lora": {"generator": "runs/lora"},
        },
        "camera_tokens": {
            "model": str(sd21),
            "tokens": str(folder / "tokens.safetensors"),
            "lora": str(folder / "lora.safetensors"),
            "size_px": 64,
        },
    }
    return Evaluation.model_validate(given)


@pytest.fixture
def read(files, tiny, monkeypatch):
    """Networks of files; runs come from memory, and the depth network's shapes do not tell its heads."""
    ours, exif, focus = tiny.student("ours"), tiny.student("exif_embedding"), tiny.focus("ours")
    shape = dict(ours.unet.config)
    weights = tiny.sdxl().state_dict()
    layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    rows, columns = weights[f"{layer}.weight"].shape
    lora = {f"{layer}.lora_A.weight": torch.ones(RANK, columns)}
    states = {
        "runs/ours": TrainedWeights(
            {"generator": ours.unet.state_dict(), "focus": focus.state_dict()},
            unet_config=shape,
            predictor=focus.settings,
        ),
        "runs/exif": TrainedWeights(
            {"generator": exif.unet.state_dict(), "exif": exif.exif.state_dict()}, unet_config=shape
        ),
        "runs/lora": TrainedWeights(
            {"lora": lora | {f"{layer}.lora_B.weight": torch.ones(rows, RANK)}}, lora_alpha=ALPHA
        ),
    }
    monkeypatch.setattr(networks_module, "is_run", lambda path: str(path) in states)
    monkeypatch.setattr(networks_module, "read_run", lambda path: states[str(path)])
    monkeypatch.setattr(
        networks_module, "load_metric3d", lambda path: load_metric3d(path, heads=1, iterations=1)
    )
    return NetworkCache(files, "cpu")


@pytest.mark.parametrize("row", ["1", "4", "5", "7", "9", "10", "controlnet"])
def test_files_give_the_pictures_of_the_networks_they_were_written_from(read, tiny, row):
    camera = Camera(torch.tensor((1.8, 8.0, 22.0)), 50.0, 36.0)
    with torch.no_grad():
        one, other = (
            TABLE1[row].generate(networks, "a dog on a forest path", camera, 0) for networks in (read, tiny)
        )
    # the same numbers; sums may be taken in another order
    assert torch.allclose(one.linear, other.linear, atol=1e-4)
    if one.focus_m is not None:
        assert one.focus_m == pytest.approx(other.focus_m, rel=1e-4)


def test_a_run_of_loras_is_added_to_sdxl(read, tiny):
    weights = read.student("lora").unet.state_dict()
    layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    for name, before in tiny.sdxl().state_dict().items():
        # ones after ones of rank 2 are twos, times alpha / rank
        change = ALPHA / RANK * RANK if name == layer else 0.0
        assert torch.allclose(weights[name], before + change, atol=1e-6), name


def test_a_folder_of_something_else_is_named(files):
    networks = NetworkCache(files.model_copy(update={"controlnet": files.base}), "cpu")
    with pytest.raises(ValueError, match="cannot be read as ControlNetModel"):
        networks.controlnet()
