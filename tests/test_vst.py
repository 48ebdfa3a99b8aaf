"""Saliency network: parity with the published forward pass, any size, files that are wrong."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lens_models.focus.vst.blocks import sinusoid_table
from lens_models.focus.vst.network import VisualSaliencyTransformer, VSTConfig, load_vst

FIXTURE = Path(__file__).parent / "fixtures" / "vst"
WEIGHTS = FIXTURE / "state_dict.safetensors"
SCALES = ("1_16", "1_8", "1_4", "1_1")
TINY = VSTConfig(
    image_px=32,
    width=16,
    heads=2,
    token_width=8,
    backbone_depth=1,
    mutual_depth=2,
    token_depth=1,
    decoder_depth=1,
    mlp_ratio=2.0,
    features=6,
    classes=5,
)


@pytest.fixture(scope="module")
def upstream():
    """Input and output of the published network at toy size with random weights."""
    return load_file(FIXTURE / "io.safetensors")


@pytest.fixture(scope="module")
def seen(upstream):
    with torch.no_grad():
        return load_vst(WEIGHTS, heads=3)(upstream["image"], upstream["depth"])


@pytest.mark.parametrize("scale", SCALES)
def test_logits_are_the_published_ones(seen, upstream, scale):
    # 1e-5 of logits around 1..5 is float32 rounding over some thirty layers; reached: 4e-6
    for ours, theirs in ((f"saliency_{scale}", f"sal_{scale}"), (f"contour_{scale}", f"con_{scale}")):
        torch.testing.assert_close(seen[ours], upstream[theirs], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("scale", "theirs"), [("1_16", "sal16"), ("1_8", "sal8"), ("1_4", "sal4")])
def test_tokens_are_the_published_ones(seen, upstream, scale, theirs):
    # normalised values up to 3, whose float32 spacing is 2e-7; reached: 1.5e-6
    torch.testing.assert_close(seen[f"token_{scale}"], upstream[theirs][:, 0], rtol=0, atol=2e-6)


def test_published_size():
    with torch.device("meta"):
        network = VisualSaliencyTransformer(VSTConfig())
    state = network.state_dict()
    assert len(state) == 826
    count = sum(value.numel() for value in state.values())
    assert count == sum(p.numel() for p in network.parameters())
    assert round(count / 1e6, 2) == 83.98


@pytest.mark.parametrize("seed", [0, 1])
def test_another_size_is_recognised(seed):
    torch.manual_seed(seed)
    config = dataclasses.replace(TINY, image_px=48, width=32, heads=4, backbone_depth=2 + seed, classes=seed)
    network = VisualSaliencyTransformer(config).eval()
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    again = load_vst(state, heads=4)
    assert again.config == config
    rgb, depth = torch.randn(2, 2, 3, 48, 48)
    with torch.no_grad():
        one, other = network(rgb, depth), again(rgb, depth)
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=0, atol=0)
    for scale, part in zip(SCALES, (16, 8, 4, 1), strict=True):
        assert (
            one[f"saliency_{scale}"].shape == one[f"contour_{scale}"].shape == (2, 1, 48 // part, 48 // part)
        )
    for scale in SCALES[:3]:
        assert one[f"token_{scale}"].shape == (2, 32)


def test_heads_where_the_file_does_not_tell():
    assert load_vst(WEIGHTS).config.heads == 3  # 48 wide: heads of 16, as in the fixture
    wide = VisualSaliencyTransformer(dataclasses.replace(TINY, width=128, heads=2))
    assert load_vst(wide.state_dict()).config.heads == 2  # as in the published model, 64 to a head
    odd = VisualSaliencyTransformer(dataclasses.replace(TINY, width=20))
    with pytest.raises(ValueError, match=r"20 wide.*give heads"):
        load_vst(odd.state_dict())


def test_every_kind_of_file(tmp_path, upstream, seen):
    state = load_file(WEIGHTS)
    assert all(key.startswith("module.") for key in state)
    bare = {key.removeprefix("module."): value for key, value in state.items()}
    save_file(bare, tmp_path / "bare.safetensors")
    torch.save(state, tmp_path / "RGBD_VST.pth")
    torch.save({"state_dict": bare, "epoch": 3}, tmp_path / "wrapped.pth")
    for name in ("bare.safetensors", "RGBD_VST.pth", "wrapped.pth"):
        again = load_vst(str(tmp_path / name), heads=3)
        assert not again.training
        torch.testing.assert_close(
            again.state_dict()["token_trans.norm.weight"], bare["token_trans.norm.weight"]
        )
    with torch.no_grad():
        last = again(upstream["image"], upstream["depth"])["saliency_1_1"]
    torch.testing.assert_close(last, seen["saliency_1_1"], rtol=0, atol=0)


def test_loading_copies():
    state = load_file(WEIGHTS)
    before = state["module.token_trans.norm.weight"].clone()
    network = load_vst(state)
    assert network.token_trans.norm.weight.requires_grad
    assert not network.rgb_backbone.pos_embed.requires_grad
    with torch.no_grad():
        network.token_trans.norm.weight.add_(1.0)
    torch.testing.assert_close(state["module.token_trans.norm.weight"], before, rtol=0, atol=0)


def test_positions_are_those_of_the_file():
    stored = load_file(WEIGHTS)["module.rgb_backbone.pos_embed"]
    # sines of angles up to 17, rounded to float32
    torch.testing.assert_close(sinusoid_table(17, 48), stored, rtol=0, atol=2e-6)


def test_gradients_reach_picture_and_depth():
    torch.manual_seed(0)
    network = VisualSaliencyTransformer(TINY).double()
    inputs = [torch.randn(1, 3, 32, 32, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def outputs(rgb, depth):
        seen = network(rgb, depth)
        return tuple(seen[key].sum() for key in ("saliency_1_1", "contour_1_1", "token_1_16", "token_1_4"))

    # float64 finite differences of a smooth network: torch's own tolerances hold
    assert torch.autograd.gradcheck(outputs, inputs, fast_mode=True)
    sum(value.sum() for value in network(*inputs).values()).backward()
    assert all((value.grad != 0).any() for value in inputs)
    untouched = [key for key, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert all(".head." in key for key in untouched)  # the classifier is only carried along


def test_half_floats_stay_finite():
    network = load_vst(WEIGHTS).to(torch.bfloat16)
    with torch.no_grad():
        seen = network(*torch.randn(2, 1, 3, 64, 64, dtype=torch.bfloat16) * 3)
    assert all(torch.isfinite(value).all() for value in seen.values())


def test_wrong_input_size(seen):
    network = VisualSaliencyTransformer(TINY)
    with pytest.raises(ValueError, match=r"3, 32, 32\), not \(1, 3, 32, 48\)"):
        network(torch.zeros(1, 3, 32, 48), torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="2 pictures do not go with 3 depth"):
        network(torch.zeros(2, 3, 32, 32), torch.zeros(3, 3, 32, 32))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"image_px": 100}, "image_px is 100.*multiple of 16"),
        ({"heads": 5}, "5 heads do not divide a width of 384"),
        ({"heads": 0}, "0 heads"),
        ({"token_width": 0}, "token_width is 0"),
        ({"backbone_depth": -1}, "backbone_depth is -1"),
    ],
)
def test_impossible_sizes(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        VSTConfig(**fields)


def test_checkpoint_of_another_model():
    with pytest.raises(
        ValueError, match=r"another model.*RGBD_VST.*found 2 tensors such as model\.diffusion"
    ):
        load_vst({"model.diffusion_model.a": torch.zeros(2), "first_stage_model.b": torch.zeros(3)})
    state = load_file(WEIGHTS)
    without_depth = {key: value for key, value in state.items() if "depth_backbone" not in key}
    with pytest.raises(ValueError, match=r"without depth.*RGBD_VST\.pth"):
        load_vst(without_depth)


def test_parts_missing_or_too_many():
    state = load_file(WEIGHTS)
    lost = dict(state)
    del lost["module.decoder.pre_1_4.weight"]
    with pytest.raises(
        ValueError, match=r"expected 381 tensors and found 380.*missing: decoder\.pre_1_4\.weight"
    ):
        load_vst(lost)
    no_position = dict(state)
    del no_position["module.rgb_backbone.pos_embed"]
    with pytest.raises(ValueError, match=r"incomplete.*pos_embed"):
        load_vst(no_position)
    with pytest.raises(ValueError, match=r"1 tensor is not expected: decoder\.extra"):
        load_vst({**state, "module.decoder.extra": torch.zeros(1)})
    reshaped = {**state, "module.decoder.pre_1_4.weight": torch.zeros(1, 60)}
    with pytest.raises(ValueError, match=r"pre_1_4\.weight should be \(1, 64\) and is \(1, 60\)"):
        load_vst(reshaped)


class _Code:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_damaged_files(tmp_path, capsys):
    whole = WEIGHTS.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    torch.save({"rgb_backbone.a": torch.zeros(1000)}, tmp_path / "whole.pth")
    half = (tmp_path / "whole.pth").read_bytes()[:2000]
    (tmp_path / "cut.pth").write_bytes(half)
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "page.pth").write_bytes(b"<html>quota exceeded</html>")
    for name in ("cut.safetensors", "cut.pth", "empty.pth", "page.pth"):
        with pytest.raises(ValueError, match=f"{name} is incomplete or damaged"):
            load_vst(tmp_path / name)
    torch.save({"state_dict": {}, "run": _Code()}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"code\.pth holds more than weights"):
        load_vst(tmp_path / "code.pth")
    assert "must not run" not in capsys.readouterr().out
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="not a list of named weights"):
        load_vst(tmp_path / "list.pth")
    with pytest.raises(FileNotFoundError, match=r"There is no file .*nowhere\.pth"):
        load_vst(tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="holds no tensors"):
        load_vst({})
