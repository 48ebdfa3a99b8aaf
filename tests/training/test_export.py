"""What the training hands to artists: every name and number of it, read back by the pack's own readers."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lens_models.focus.predictor import FocusPredictor, load_predictor, save_predictor
from lens_models.focus.vst.network import VisualSaliencyTransformer, VSTConfig
from lens_models.generator.card import read_card
from lens_models.generator.exif_embedding import ExifEmbedding, head_tensors, load_exif_embedding
from training.export import export
from training.export.export import (
    Provenance,
    TrainedWeights,
    export_generator,
    export_lora,
    export_state,
    predictor_from,
    read_state,
)
from training.export.lora_names import lora_tensors
from training.networks.sdxl_unet import build_unet, load_unet

FIXTURE = Path(__file__).parents[1] / "fixtures" / "dmd2"
CONFIG = json.loads((FIXTURE / "config.json").read_text())
RUN = Provenance("2", 500, config_hash="c0", data_hash="d0", code_hash="e0")
TINY = VSTConfig(
    image_px=32,
    width=16,
    heads=1,
    token_width=8,
    backbone_depth=1,
    mutual_depth=1,
    token_depth=1,
    decoder_depth=1,
    features=8,
    classes=0,
)


@pytest.fixture(scope="module")
def tensors():
    return load_file(FIXTURE / "diffusion_pytorch_model.safetensors")


def head() -> ExifEmbedding:
    torch.manual_seed(0)
    made = ExifEmbedding(128)
    torch.nn.init.normal_(made.linear_2.weight, std=0.1)
    return made


def generator(tensors, exif=None, **of_the_run) -> TrainedWeights:
    parts = {"generator": tensors} | ({"exif": head_tensors(exif)} if exif else {})
    return TrainedWeights(parts, **{"unet_config": CONFIG, **of_the_run})


def adapter(tensors, alpha=None, **of_the_run) -> TrainedWeights:
    return TrainedWeights({"lora": tensors}, lora_alpha=alpha, unet_config=CONFIG, **of_the_run)


def predictor() -> FocusPredictor:
    """A tiny one whose settings are none of the defaults."""
    torch.manual_seed(1)
    made = FocusPredictor(
        VisualSaliencyTransformer(TINY), token="1/4", normalisation="depth", polarity="near is dark"
    )
    torch.nn.init.normal_(made.scale_head.weight)
    return made.eval()


def lora(rank=2) -> dict[str, torch.Tensor]:
    """By peft's names: a linear layer and a convolution of the tiny UNet."""
    g = torch.Generator().manual_seed(0)
    layers = dict(build_unet(CONFIG).named_modules())
    made = {}
    for name in ("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.resnets.0.conv1"):
        out, *rest = layers[name].weight.shape
        made[f"{name}.lora_A.weight"] = torch.randn(rank, *rest, generator=g)
        made[f"{name}.lora_B.weight"] = torch.randn(out, rank, *(1 for _ in rest[1:]), generator=g)
    return made


@pytest.fixture
def state(tmp_path, tensors):
    """A folder as a training leaves it."""
    folder = tmp_path / "state"
    folder.mkdir()
    save_file(tensors, folder / "generator.safetensors")
    save_file(head_tensors(head()), folder / "exif.safetensors")
    save_predictor(folder / "focus.safetensors", predictor())
    save_file(lora(), folder / "lora.safetensors")
    shutil.copy(FIXTURE / "config.json", folder)
    told = {**RUN.header, "stage": "2", "step": 500, "timesteps": [999, 499], "lora_alpha": 4}
    (folder / "state.json").write_text(json.dumps(told))
    return folder


# ------------------------------------------------------------------------------------------ generator


def as_unet(path, folder):
    """`load_unet` knows SDXL by a file alone and any other size by its folder."""
    folder.mkdir()
    shutil.copy(path, folder / "diffusion_pytorch_model.safetensors")
    shutil.copy(FIXTURE / "config.json", folder)
    return load_unet(folder)


@pytest.mark.parametrize(("dtype", "kind"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_a_generator_is_read_back(tmp_path, tensors, dtype, kind):
    path = tmp_path / "made.safetensors"
    made = export_generator(path, generator(tensors, head(), run=RUN), dtype)
    card = read_card(path)
    assert (card.timesteps, card.stage, card.prediction) == ((999, 749, 499, 249), "2", "eps")
    assert "Open RAIL++-M" in card.licence
    unet = as_unet(path, tmp_path / "unet")
    assert next(unet.parameters()).dtype == kind
    for name, tensor in unet.state_dict().items():
        assert torch.equal(tensor, tensors[name].to(kind)), name
    assert torch.equal(load_exif_embedding(path)(2.8, 50.0), head()(2.8, 50.0))
    assert made.tensors == len(tensors) + 4
    assert made.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert made.bytes == path.stat().st_size
    with safe_open(path, "pt") as file:
        header = file.metadata()
    assert {k: header[k] for k in ("step", "config_hash", "data_hash", "code_hash", "precision")} == {
        "step": "500", "config_hash": "c0", "data_hash": "d0", "code_hash": "e0", "precision": dtype,
    }  # fmt: skip
    assert header["weights_sha256"] == made.weights_sha256 == export.weights_hash(load_file(path))


def test_every_name_of_sdxl(monkeypatch, tmp_path):
    """Published size, without its 10 GB: what would be written is caught on the way."""
    with torch.device("meta"):
        tensors = build_unet().state_dict()
    seen = {}
    monkeypatch.setattr(export, "_rounded", lambda _name, t, _dtype: t)
    monkeypatch.setattr(export, "_written", lambda _path, _part, content, *_, **__: seen.update(content))
    export_generator(tmp_path / "a.safetensors", generator(tensors, ExifEmbedding(1280), unet_config=None))
    names = [name for name in seen if not name.startswith("exif_embedding.")]
    assert len(names) == 1680
    assert set(names) == set(tensors)
    assert len(seen) == 1684


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("conv_in.bias"), "expected 328 tensors and found 327"),
        (lambda t: t.update(extra=torch.ones(1)), "1 tensor is not expected: extra"),
        (lambda t: t.update({"conv_in.bias": torch.ones(3)}), "conv_in.bias should be"),
        (lambda t: t["conv_in.bias"].fill_(torch.nan), "conv_in.bias holds numbers that are not finite"),
        (lambda t: t["conv_in.bias"].fill_(1e5), r"reaches 1e\+05, and fp16 ends at 6.55e\+04"),
    ],
)
def test_generators_that_are_wrong(tmp_path, tensors, change, said):
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    with pytest.raises(ValueError, match=said):
        export_generator(tmp_path / "a.safetensors", generator(tensors))
    assert not list(tmp_path.iterdir())


def test_a_head_of_another_generator(tmp_path, tensors):
    with pytest.raises(ValueError, match="1280 wide and the generator's time embedding 128"):
        export_generator(tmp_path / "a.safetensors", generator(tensors, ExifEmbedding()))


def test_a_full_disk_leaves_the_last_export(tmp_path, tensors, monkeypatch):
    path = tmp_path / "a.safetensors"
    before = export_generator(path, generator(tensors))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**5))
    with pytest.raises(OSError, match=r"and .* has 0\.0 GB free"):
        export_generator(path, generator(tensors))
    monkeypatch.undo()

    def fails_half_way(_tensors, file, **_):
        Path(file).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fails_half_way)
    with pytest.raises(OSError, match="No space left"):
        export_generator(path, generator(tensors))
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before.sha256


# --------------------------------------------------------------------------------------------- LoRA


def test_a_lora_has_the_names_of_comfyui(tmp_path):
    path = tmp_path / "lora.safetensors"
    export_lora(path, adapter(lora(), 4, run=RUN), "fp32")
    written, given = load_file(path), lora()
    q = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    conv = "lora_unet_mid_block_resnets_0_conv1"
    parts = ("lora_down.weight", "lora_up.weight", "alpha")
    assert set(written) == {f"{layer}.{part}" for layer in (q, conv) for part in parts}
    assert torch.equal(written[f"{conv}.lora_down.weight"], given["mid_block.resnets.0.conv1.lora_A.weight"])
    assert torch.equal(written[f"{conv}.lora_up.weight"], given["mid_block.resnets.0.conv1.lora_B.weight"])
    assert written[f"{q}.alpha"].item() == 4
    assert read_card(path).timesteps == (999, 749, 499, 249)
    again = lora_tensors(
        written, None, {k: tuple(t.shape) for k, t in build_unet(CONFIG).state_dict().items()}
    )
    assert set(again) == set(written)


def test_names_with_an_adapter_in_them(tmp_path):
    named = {
        "base_model.model." + k.replace("_A.", "_A.g.").replace("_B.", "_B.g."): t for k, t in lora().items()
    }
    plain = export_lora(tmp_path / "a.safetensors", adapter(lora(), 2))
    assert export_lora(tmp_path / "b.safetensors", adapter(named, 2)).tensors == 6
    assert plain.weights_sha256 == export.weights_hash(load_file(tmp_path / "b.safetensors"))


CONV = "mid_block.resnets.0.conv1"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{CONV}.lora_B.weight"), "incomplete: it has only lora_down"),
        (
            lambda t: t.update({"a.lora_A.weight": torch.ones(1)}),
            "1 of the LoRA's 3 layers are not of this UNet",
        ),
        (lambda t: t.update({f"{CONV}.lora_B.weight": torch.ones(9, 2, 1, 1)}), "do not fit"),
        (lambda t: t.update({f"{CONV}.dora": torch.ones(1)}), "dora is not a LoRA's tensor"),
    ],
)
def test_loras_that_are_wrong(tmp_path, change, said):
    tensors = lora()
    change(tensors)
    with pytest.raises(ValueError, match=said):
        export_lora(tmp_path / "a.safetensors", adapter(tensors, 2))


def test_a_lora_without_alpha(tmp_path):
    with pytest.raises(ValueError, match="does not say its alpha: give the training's, or rank 2"):
        export_lora(tmp_path / "a.safetensors", adapter(lora()))


# ------------------------------------------------------------------------------------ state and card


def test_a_whole_state(state, tmp_path):
    written = export_state(read_state(state), tmp_path / "out", dtype="bf16")
    names = ["dof_sdxl_2step_bf16.safetensors", "dof_sdxl_2step_lora.safetensors", "vst_focus.safetensors"]
    assert [e.path.name for e in written] == names
    assert read_card(written[0].path).timesteps == (999, 499)
    assert torch.equal(load_exif_embedding(written[0].path)(2.8, 50.0), head()(2.8, 50.0))

    back, ours = load_predictor(written[2].path), predictor()
    assert (back.settings, back.notes) == (ours.settings, ())
    assert (back.metadata["stage"], back.metadata["step"], back.metadata["config_hash"]) == ("2", 500, "c0")
    assert back.metadata["weights_sha256"] == written[2].weights_sha256
    picture, depth = torch.rand(1, 3, 40, 56), torch.rand(1, 40, 56) * 4 + 1
    with torch.no_grad():
        (focus, saliency), (wanted, seen) = back(picture, depth), ours(picture, depth)
    assert torch.equal(focus.distance_m, wanted.distance_m)
    assert torch.equal(focus.scale, wanted.scale)
    assert torch.equal(saliency, seen)

    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert "{" not in card
    for e in written:
        assert f"`{e.path.name}`" in card
        assert hashlib.sha256(e.path.read_bytes()).hexdigest() in card
    for fact in (
        "CreativeML Open RAIL++-M",
        "999, 499",
        "| 2, 500 |",
        "`c0`",
        "`d0`",
        "`e0`",
        "none of DMD2's",
    ):
        assert fact in card


def test_the_licence_is_that_of_what_it_started_from(tmp_path, tensors):
    path = tmp_path / "a.safetensors"
    export_generator(path, generator(tensors, run=Provenance(base="dmd2_sdxl_4step_unet")))
    assert "non-commercial" in read_card(path).licence


def test_files_come_before_the_folder(state, tmp_path, tensors):
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    save_file(other, tmp_path / "other.safetensors")
    given = read_state(state, {"generator": tmp_path / "other.safetensors"})
    assert torch.equal(given.tensors["generator"]["conv_in.bias"], other["conv_in.bias"])
    alone = read_state(files={"focus": state / "focus.safetensors"})
    assert set(alone.tensors) == {"focus"}
    assert alone.predictor == predictor().settings


def test_a_plain_state_dict_needs_its_settings(state):
    save_file(predictor().state_dict(), state / "focus.safetensors")
    with pytest.raises(ValueError, match="do not say how depth is shown"):
        predictor_from(read_state(state).tensors["focus"], read_state(state).predictor)
    told = json.loads((state / "state.json").read_text())
    (state / "state.json").write_text(json.dumps({**told, "predictor": predictor().settings}))
    given = read_state(state)
    assert predictor_from(given.tensors["focus"], given.predictor).settings == predictor().settings
    alone = {k: t for k, t in given.tensors["focus"].items() if not k.startswith("scale_head")}
    with pytest.raises(ValueError, match="2 tensors are missing"):
        predictor_from(alone, given.predictor)
    with pytest.raises(ValueError, match="settings are of another version"):
        predictor_from(given.tensors["focus"], {**given.predictor, "more": 1})


def test_states_that_cannot_be_read(state, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        read_state(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="nothing to export"):
        read_state(tmp_path / "empty")
    with pytest.raises(ValueError, match="no part unet"):
        read_state(files={"unet": "a"})
    with pytest.raises(FileNotFoundError, match=r"There is no file .*none"):
        read_state(files={"generator": "none.safetensors"})
    (state / "state.json").write_text("{")
    with pytest.raises(ValueError, match="incomplete or damaged"):
        read_state(state)
