"""LPIPS: the lpips package's answers with the same random weights, a reference of its own, odd files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lens_models.metrics.lpips import CHANNELS, LPIPS, adjacent_distances, load_lpips

SHAPES = ((64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3))
PLACES = (0, 3, 6, 8, 10)


def trunk() -> dict[str, torch.Tensor]:
    """Random AlexNet, convolutions only; numpy's numbers, which do not depend on torch."""
    random, found = np.random.default_rng(1), {}
    for place, (out, into, side) in zip(PLACES, SHAPES, strict=True):
        weight = random.standard_normal((out, into, side, side)) * (2.0 / (into * side * side)) ** 0.5
        found[f"features.{place}.weight"] = torch.from_numpy(weight).float()
        found[f"features.{place}.bias"] = torch.from_numpy(0.1 * random.standard_normal(out)).float()
    return found


def heads() -> dict[str, torch.Tensor]:
    random = np.random.default_rng(2)
    return {
        f"lin{i}.model.1.weight": torch.from_numpy(random.random((1, c, 1, 1)) / 10.0).float()
        for i, c in enumerate(CHANNELS)
    }


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(3)
    x = torch.from_numpy(random.random((3, 3, 67, 90))).float()
    y = torch.stack([x[0].flip(-1), 0.8 * x[1] + 0.1, torch.from_numpy(random.random((3, 67, 90))).float()])
    return x, y


@pytest.fixture(scope="module")
def network() -> LPIPS:
    return load_lpips(trunk(), heads())


#: What lpips 0.1.4 answers to `pictures` with `trunk` and `heads`, normalize=True, in float64; run beside a
#: stand-in for torchvision's AlexNet, which is all it wants of torchvision.
PACKAGE = (0.09309873043655402, 0.0002139724101387405, 0.09285738250123696)


def test_equals_the_lpips_package(network):
    with torch.no_grad():
        found = network(*pictures())
    assert found.shape == (3,)
    np.testing.assert_allclose(found.numpy(), PACKAGE, rtol=0, atol=1e-6)  # float32; seen: 2e-8


def by_numpy(a: np.ndarray, b: np.ndarray) -> float:
    """The definition once more, in float64 with scipy's correlation and no torch layers."""
    weights = {key: value.double().numpy() for key, value in (trunk() | heads()).items()}
    total = 0.0

    def pooled(x):
        rows, columns = ((n - 3) // 2 + 1 for n in x.shape[1:])
        parts = [
            x[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2] for i in range(3) for j in range(3)
        ]
        return np.max(parts, axis=0)

    seen = []
    for picture in (a, b):
        mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        x = (picture - mean[:, None, None]) / deviation[:, None, None]
        layers = []
        for place, (_, _, side) in zip(PLACES, SHAPES, strict=True):
            if place in (3, 6):
                x = pooled(x)
            border = 2 if side > 3 else 1
            padded = np.pad(x, ((0, 0), (border, border), (border, border)))
            kernels = weights[f"features.{place}.weight"]
            step = 4 if place == 0 else 1
            windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))
            x = np.einsum("chwij,ocij->ohw", windows[:, ::step, ::step], kernels, optimize=True)
            x = np.maximum(x + weights[f"features.{place}.bias"][:, None, None], 0.0)
            layers.append(x)
        seen.append(layers)
    for i, (x, y) in enumerate(zip(*seen, strict=True)):
        x, y = (v / np.sqrt((v**2).sum(axis=0)) for v in (x, y))
        total += (weights[f"lin{i}.model.1.weight"][0] * (x - y) ** 2).sum(axis=0).mean()
    return total


def test_equals_the_definition(network):
    x, y = pictures()
    expected = by_numpy(x[0].double().numpy(), y[0].double().numpy())
    with torch.no_grad():
        found = network(x[:1], y[:1]).item()
    assert found == pytest.approx(expected, abs=1e-6)  # float32 sums


def test_what_a_distance_has_to_do(network):
    x, y = pictures()
    with torch.no_grad():
        assert network(x, x).tolist() == [0.0, 0.0, 0.0]
        there, back = network(x, y), network(y, x)
        assert (there > 1e-4).all()
        assert torch.equal(there, back)
        assert there[1] < 0.1 * there[2]  # with less contrast, and another picture
        alone = network(x[1:2], y[1:2])
        np.testing.assert_allclose(alone.item(), there[1].item(), rtol=0, atol=1e-6)  # float32 sums
        sweep = torch.stack([x[0], y[0], x[0]])
        between = adjacent_distances(network, sweep)
    assert between.shape == (2,)
    np.testing.assert_allclose(between.numpy(), there[0].item(), rtol=0, atol=1e-6)


def test_files(tmp_path, network):
    whole = {**trunk(), "classifier.6.bias": torch.zeros(1000)}  # torchvision's file holds the classifier
    torch.save(whole, tmp_path / "alexnet.pth")
    save_file(heads(), tmp_path / "heads.safetensors")
    again = load_lpips(tmp_path / "alexnet.pth", tmp_path / "heads.safetensors")
    x, y = pictures()
    with torch.no_grad():
        assert torch.equal(again(x, y), network(x, y))
    with pytest.raises(ValueError, match=r"heads\.safetensors holds no tensor that begins with features"):
        load_lpips(tmp_path / "heads.safetensors", tmp_path / "alexnet.pth")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load_lpips(tmp_path / "alexnet.pth", tmp_path / "none.pth")


def test_heads_of_another_network():
    wrong = heads() | {"lin1.model.1.weight": torch.zeros(1, 128, 1, 1)}
    with pytest.raises(ValueError, match=r"lin1\.model\.1\.weight should be \(1, 192, 1, 1\)"):
        load_lpips(trunk(), wrong)


def test_pictures_that_do_not_go_together(network):
    x, y = pictures()
    with pytest.raises(ValueError, match="90 × 67 px and 80 × 67 px"):
        network(x, y[..., :80])
    with pytest.raises(ValueError, match="3 pictures do not go with 2 others"):
        network(x, y[:2])
    with pytest.raises(ValueError, match="at least 31 × 31 px; these are 30 × 31 px"):
        network(x[..., :31, :30], y[..., :31, :30])
    with torch.no_grad():
        assert torch.isfinite(network(x[..., :31, :31], y[..., :31, :31])).all()
    with pytest.raises(ValueError, match="at least 2 pictures; there is 1"):
        adjacent_distances(network, x[:1])
