"""Metric3Dv2: parity with the published code, sizes, checkpoints good and bad, gradients, half precision.

The fixtures are upstream's own forward pass of two tiny networks with random weights (one picture of two;
depth, confidence and normals every third pixel, which meets all 16 places inside a 4 px cell).
"""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lens_models.depth.metric3d.config import PUBLISHED, Metric3DConfig
from lens_models.depth.metric3d.network import Metric3Dv2, config_from_weights, load_metric3d

FIXTURES = Path(__file__).parent / "fixtures" / "metric3d"
KINDS = ("single_mlp", "multi_swiglu")
TINY = Metric3DConfig(24, 4, 2, "swiglu", True, (8, 12), 8, 8, 2)


def fixture_network(kind: str) -> Metric3Dv2:
    return load_metric3d(FIXTURES / f"{kind}.safetensors", heads=3, iterations=3)


def tiny_network(**changes) -> Metric3Dv2:
    torch.manual_seed(0)
    return Metric3Dv2(dataclasses.replace(TINY, **changes)).eval()


def on_meta(config: Metric3DConfig) -> Metric3Dv2:
    with torch.device("meta"):
        return Metric3Dv2(config)


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


@pytest.mark.parametrize("kind", KINDS)
def test_parity_with_the_published_code(kind):
    network, expected = fixture_network(kind), load_file(FIXTURES / f"{kind}_io.safetensors")
    with torch.no_grad():
        tokens = network.encoder(expected["input"])
        maps = {name: m[..., ::3, ::3] for name, m in network(expected["input"]).items()}
    # float32 in another order of summation; depth swings over 150 m here, so 5e-4 m is 3e-6 of it
    assert largest_difference(tokens[-1], expected["vit_last"]) <= 1e-5
    assert largest_difference(maps["depth"], expected["depth"]) <= 5e-4
    assert largest_difference(maps["confidence"], expected["confidence"]) <= 2e-5
    assert largest_difference(maps["normal"], expected["normal"]) <= 2e-5


@pytest.mark.parametrize(
    ("size", "keys", "millions"), [("small", 362, 37.50), ("large", 530, 411.94), ("giant2", 754, 1377.7)]
)
def test_published_sizes(size, keys, millions):
    network = on_meta(PUBLISHED[size])
    weights = network.state_dict()
    assert len(weights) == keys
    count = sum(p.numel() for p in network.parameters()) / 1e6
    assert count == pytest.approx(millions, abs=0.05 if millions > 1000 else 0.005)  # digits that are given
    # a state dict of shapes alone is enough to recognise and to load it
    loaded = load_metric3d({f"depth_model.{name}": tensor for name, tensor in weights.items()})
    assert loaded.config == PUBLISHED[size]


@pytest.mark.parametrize(
    "config",
    [
        Metric3DConfig(128, 3, 2, "mlp", False, (40, 24), 20, 12, 8),
        Metric3DConfig(40, 8, 1, "swiglu", True, (8, 16), 24, 8, 8, registers=1),
        Metric3DConfig(200, 1, 2, "mlp", False, (8, 8), 8, 8, 8),  # 3 heads would not divide 200
    ],
)
def test_other_sizes_are_recognised(config):
    assert config_from_weights(on_meta(config).state_dict()) == config


def test_heads_and_iterations_can_be_told():
    config = load_metric3d(on_meta(PUBLISHED["small"]).state_dict(), heads=12, iterations=2).config
    assert config == dataclasses.replace(PUBLISHED["small"], heads=12, iterations=2)
    with pytest.raises(ValueError, match="7 attention heads do not divide the network's width 24"):
        load_metric3d(tiny_network().state_dict(), heads=7)


def test_every_container_gives_the_same_network(tmp_path):
    network = tiny_network()
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    prefixed = {f"depth_model.{name}": tensor for name, tensor in weights.items()}
    torch.save({"model_state_dict": prefixed}, tmp_path / "published.pth")
    torch.save(weights, tmp_path / "plain.pth")
    torch.save(prefixed, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file({f"module.{name}": tensor for name, tensor in prefixed.items()}, tmp_path / "a.safetensors")
    picture = torch.rand(1, 3, 28, 56)
    with torch.no_grad():
        expected = network(picture)["depth"]
        sources = [*sorted(tmp_path.iterdir()), weights, {"model_state_dict": prefixed}]
        assert len(sources) == 6
        for source in sources:
            loaded = load_metric3d(source, heads=2, iterations=2)
            assert all(torch.equal(t, weights[name]) for name, t in loaded.state_dict().items())
            # where a file puts a tensor in memory decides how sums are grouped: rounding of 200 m
            torch.testing.assert_close(loaded(picture)["depth"], expected, rtol=0, atol=2e-3)
            assert not loaded.training
            assert all(p.requires_grad for p in loaded.parameters())


def test_weights_are_used_not_copied_and_may_be_half():
    weights = tiny_network().state_dict()
    loaded = load_metric3d(weights)
    assert loaded.encoder.norm.weight.data_ptr() == weights["encoder.norm.weight"].data_ptr()
    half = {name: tensor.half() for name, tensor in weights.items()}
    assert {p.dtype for p in load_metric3d(half).parameters()} == {torch.float16}
    half["encoder.norm.weight"] = half["encoder.norm.weight"].float()
    assert {p.dtype for p in load_metric3d(half).parameters()} == {torch.float32}


def test_wrong_weights_are_named():
    weights = tiny_network().state_dict()
    for name in ("encoder.norm.bias", "decoder.update_block.mask.0.bias"):
        del weights[name]
    weights["encoder.head.weight"] = torch.zeros(3)
    weights["encoder.mask_token"] = torch.zeros(1, 7)
    with pytest.raises(ValueError, match="does not fit") as caught:
        load_metric3d(weights)
    sentence = str(caught.value)
    assert "24 wide with 4 swiglu blocks" in sentence
    assert "expected 238 tensors and found 237" in sentence
    assert "2 tensors are missing: encoder.norm.bias, decoder.update_block.mask.0.bias." in sentence
    assert "1 tensor is not expected: encoder.head.weight." in sentence
    assert "encoder.mask_token should be (1, 24) and is (1, 7)" in sentence


def test_many_wrong_weights_are_counted():
    weights = {n: t for n, t in tiny_network().state_dict().items() if "normal_predictor" not in n}
    with pytest.raises(ValueError, match=r"8 tensors are missing: .* and 5 more"):
        load_metric3d(weights)


@pytest.mark.parametrize("missing", ["encoder.cls_token", "decoder.token2feature.read_1.sample.weight"])
def test_another_network_is_refused(missing):
    weights = tiny_network().state_dict()
    del weights[missing]
    with pytest.raises(
        ValueError, match=rf"not a Metric3Dv2 ViT checkpoint.*{missing}.*237 tensors, such as"
    ):
        load_metric3d(weights)


@pytest.mark.parametrize(
    "name", ["half.pth", "half.safetensors", "page.pth", "page.safetensors", "empty.pth"]
)
def test_damaged_files(tmp_path, name):
    path = tmp_path / name
    weights = {n: t.contiguous().clone() for n, t in tiny_network().state_dict().items()}
    save_file(weights, path) if path.suffix == ".safetensors" else torch.save(weights, path)
    whole = path.read_bytes()
    path.write_bytes(
        {"half": whole[: len(whole) // 2], "page": b"<!doctype html>" * 99, "empty": b""}[path.stem]
    )
    size = "MB" if path.stem == "half" else f"{path.stat().st_size:,} bytes"
    with pytest.raises(ValueError, match=rf"{name} is incomplete or damaged \(.*{size}\).*download it again"):
        load_metric3d(path)


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.pth"):
        load_metric3d(tmp_path / "nothing.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth is not a list of named weights"):
        load_metric3d(tmp_path / "list.pth")


class Trap:
    """Calls a function when it is unpickled."""

    def __reduce__(self):
        return pickle.loads, (b"never",)


def test_program_objects_are_not_opened(tmp_path):
    torch.save({"model_state_dict": tiny_network().state_dict(), "trap": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match=r"trap\.pth holds more than weights"):
        load_metric3d(tmp_path / "trap.pth")


@pytest.mark.parametrize(
    "changes",
    [{"heads": 5}, {"ffn": "relu"}, {"iterations": 0}, {"depth": 0}, {"depth": 3, "multi_output": True}],
)
def test_impossible_configurations(changes):
    with pytest.raises(ValueError, match=str(next(iter(changes.values())))):
        dataclasses.replace(TINY, **changes)


@pytest.mark.parametrize(
    ("height", "width", "out"),
    [(28, 28, (28, 28)), (28, 84, (28, 84)), (42, 56, (40, 56)), (70, 42, (68, 40))],
)
def test_sizes(height, width, out):
    with torch.no_grad():
        maps = tiny_network()(torch.randn(2, 3, height, width))
    # an odd number of patches loses 2 px, as in the published code
    assert maps["depth"].shape == maps["confidence"].shape == (2, 1, *out)
    assert maps["normal"].shape == (2, 4, *out)


@pytest.mark.parametrize(("height", "width"), [(14, 56), (56, 14), (27, 28), (30, 56), (56, 57), (0, 28)])
def test_sizes_that_do_not_go(height, width):
    with pytest.raises(ValueError, match=rf"{width} × {height} px is not a multiple of 14"):
        tiny_network()(torch.zeros(1, 3, height, width))


def test_positions_are_left_alone_at_the_learned_size():
    encoder = tiny_network().encoder
    assert encoder.positions(37, 37) is encoder.pos_embed
    assert encoder.positions(5, 9).shape == (1, 46, 24)


def test_outputs_are_what_they_say():
    with torch.no_grad():
        maps = tiny_network()(50 * torch.randn(2, 3, 56, 28))
    assert ((maps["depth"] >= 0.1 - 1e-5) & (maps["depth"] <= 200)).all()  # 200 − 199.9 in float32
    length = maps["normal"][:, :3].norm(dim=1)
    torch.testing.assert_close(length, torch.ones_like(length))
    assert (maps["normal"][:, 3] > 0).all()


def test_pictures_of_a_batch_do_not_meet():
    network, pictures = tiny_network(), torch.randn(3, 3, 56, 28)
    with torch.no_grad():
        together = network(pictures)
        for i in range(3):
            for name, alone in network(pictures[i : i + 1]).items():
                # other kernels for other batch sizes: rounding, of up to 200 m
                torch.testing.assert_close(together[name][i : i + 1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [{}, {"ffn": "mlp", "multi_output": False}])
def test_gradient_is_the_slope(kind):
    # random directions through the whole network in float64
    network = tiny_network(**kind).double().requires_grad_(False)
    picture = torch.randn(1, 3, 28, 28, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: tuple(network(x).values()), picture, fast_mode=True)


def test_gradient_reaches_the_picture_and_all_weights():
    network = fixture_network("multi_swiglu")
    picture = torch.rand(1, 3, 40, 60, requires_grad=True)
    estimate = network.estimate_maps(picture, 80.0, canvas=(56, 84))
    (estimate.depth_m.log().mean() + estimate.confidence.mean() + estimate.normal[:, 0].mean()).backward()
    assert torch.isfinite(picture.grad).all()
    assert (picture.grad != 0).float().mean() > 0.9
    without = [name for name, p in network.named_parameters() if p.grad is None]
    # one serves the encoder's own training, the other its end, which this kind does not read
    assert without == ["encoder.mask_token", "encoder.norm.weight", "encoder.norm.bias"]


def test_recomputing_gives_the_same_gradient():
    picture = torch.randn(1, 3, 56, 56)
    gradients, kept = [], []
    for checkpointing in (False, True):
        network, given = fixture_network("single_mlp"), picture.clone().requires_grad_()
        network.gradient_checkpointing = checkpointing
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t
        ):
            loss = sum(m.mean() for m in network(given).values())
        loss.backward()
        gradients.append([given.grad, *(p.grad for p in network.parameters() if p.grad is not None)])
        kept.append(sum(sizes))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert kept[1] < 0.2 * kept[0]  # what the forward pass leaves in memory, weights counted each time


@pytest.mark.parametrize(("dtype", "share"), [(torch.bfloat16, 2e-2), (torch.float16, 5e-3)])
@pytest.mark.parametrize("part", ["all", "encoder"])
def test_half_precision(dtype, share, part):
    network = fixture_network("single_mlp")
    picture = load_file(FIXTURES / "single_mlp_io.safetensors")["input"]
    with torch.no_grad():
        exact = network(picture)
        (network if part == "all" else network.encoder).to(dtype)
        rounded = network(picture)
    # bfloat16 keeps 8 bits and float16 11; random weights pass rounding on undamped
    for name, value in exact.items():
        assert rounded[name].dtype == torch.float32
        assert torch.isfinite(rounded[name]).all()
        assert (rounded[name] - value).abs().mean() <= share * value.std()
