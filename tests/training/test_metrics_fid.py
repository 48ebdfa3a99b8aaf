"""The Fréchet distance: closed forms of Gaussians, scipy's matrix root, streaming, odd input."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from training.evaluate.metrics.fid import FeatureStatistics, frechet_distance
from training.evaluate.metrics.inception import FIDInception, load_inception


def fid(one: FeatureStatistics, other: FeatureStatistics) -> float:
    return frechet_distance(one.mean, one.covariance, other.mean, other.covariance)


def spread(random: np.random.Generator, size: int, rank: int | None = None) -> torch.Tensor:
    half = random.standard_normal((size, rank or size))
    return torch.from_numpy(half @ half.T / size)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_one_dimension():
    """(μ₁ − μ₂)² + (σ₁ − σ₂)²."""
    found = frechet_distance(
        torch.tensor([1.0]), torch.tensor([[4.0]]), torch.tensor([3.5]), torch.tensor([[0.25]])
    )
    assert found == pytest.approx(2.5**2 + (2.0 - 0.5) ** 2, abs=1e-12)


@pytest.mark.parametrize("size", [2, 64, 300])
def test_covariances_that_commute_have_a_closed_form(random, size):
    """With the same axes: |μ₁ − μ₂|² + Σ (√λ₁ − √λ₂)²."""
    axes = torch.from_numpy(np.linalg.qr(random.standard_normal((size, size)))[0])
    one, two = (torch.from_numpy(random.random(size) * 9.0) for _ in range(2))
    means = [torch.from_numpy(random.standard_normal(size)) for _ in range(2)]
    found = frechet_distance(means[0], (axes * one) @ axes.T, means[1], (axes * two) @ axes.T)
    expected = (means[0] - means[1]).square().sum() + (one.sqrt() - two.sqrt()).square().sum()
    assert found == pytest.approx(expected.item(), abs=1e-6)


def test_equals_the_definition_with_a_matrix_root(random):
    one, two = spread(random, 40), spread(random, 40)
    means = [torch.from_numpy(random.standard_normal(40)) for _ in range(2)]
    root = scipy.linalg.sqrtm(one.numpy() @ two.numpy()).real
    expected = (means[0] - means[1]).square().sum() + torch.trace(one + two) - 2.0 * np.trace(root)
    assert frechet_distance(means[0], one, means[1], two) == pytest.approx(expected.item(), abs=1e-6)


class Extractor(torch.nn.Module):
    """A small network in the place of Inception; torchmetrics asks for `num_features`."""

    num_features = 12

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv2d(3, self.num_features, 3, stride=2).double()

    def forward(self, pictures):
        return self.layer(pictures.double()).relu().mean(dim=(2, 3))


def test_equals_torchmetrics_with_the_same_extractor(random):
    frechet = pytest.importorskip("torchmetrics.image.fid").FrechetInceptionDistance
    extractor = Extractor()
    theirs = frechet(feature=extractor, normalize=True, input_img_size=(3, 16, 16)).set_dtype(torch.float64)
    ours = []
    for real, exponent in ((True, 1.0), (False, 2.0)):
        pictures = torch.from_numpy(random.random((200, 3, 16, 16)) ** exponent)
        statistics = FeatureStatistics()
        for batch in pictures.split(64):
            theirs.update(batch, real=real)
            with torch.no_grad():
                statistics.add(extractor(batch))
        ours.append(statistics)
    # the 1e-4; both are float64, and theirs takes the root of a product that is not symmetric
    assert fid(*ours) == pytest.approx(theirs.compute().item(), rel=1e-4)
    assert fid(*ours) > 1e-3


def test_fewer_pictures_than_features(random):
    """Singular covariances, on which a matrix root of the product fails or turns complex."""
    one, two = spread(random, 50, rank=7), spread(random, 50, rank=11)
    mean = torch.zeros(50)
    there, back = frechet_distance(mean, one, mean, two), frechet_distance(mean, two, mean, one)
    assert there > 1.0
    # roots of eigenvalues that rounding leaves at 1e-16 are 1e-8 each
    assert there == pytest.approx(back, abs=1e-5)
    assert frechet_distance(mean, one, mean, one) == pytest.approx(0.0, abs=1e-5)
    assert frechet_distance(mean, one, mean, torch.zeros(50, 50)) == pytest.approx(one.trace().item())


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_streamed_statistics_are_those_of_the_whole(random, offset):
    features = random.standard_normal((500, 20)) @ random.standard_normal((20, 20)) + offset
    statistics = FeatureStatistics()
    for part in np.split(features, [1, 2, 30, 333]):
        statistics.add(torch.from_numpy(part))
    assert statistics.count == 500
    # what float64 leaves of numbers of this size, with a mean taken away
    close = 1e-12 * max(1.0, offset)
    np.testing.assert_allclose(statistics.mean.numpy(), features.mean(axis=0), rtol=0, atol=close)
    expected = np.cov(features, rowvar=False)
    np.testing.assert_allclose(statistics.covariance.numpy(), expected, rtol=0, atol=1e-9)


def test_samples_of_known_gaussians_come_near_the_closed_form(random):
    """N(0, 1) against N(m, s²) in 8 dimensions: 8 m² + 8 (s − 1)², with 40,000 samples to 3 %."""
    one = FeatureStatistics().add(torch.from_numpy(random.standard_normal((40_000, 8))))
    two = FeatureStatistics().add(torch.from_numpy(1.5 * random.standard_normal((40_000, 8)) + 0.5))
    assert fid(one, two) == pytest.approx(8 * 0.25 + 8 * 0.25, rel=0.03)
    assert fid(one, one) == pytest.approx(0.0, abs=1e-9)


def test_bad_input_is_a_sentence():
    statistics = FeatureStatistics()
    with pytest.raises(ValueError, match="features of 0 pictures; at least 1"):
        statistics.mean  # noqa: B018
    statistics.add(torch.ones(1, 4))
    with pytest.raises(ValueError, match="features of 1 pictures; at least 2"):
        statistics.covariance  # noqa: B018
    with pytest.raises(ValueError, match="5 features of each picture, and there were 4"):
        statistics.add(torch.ones(2, 5))
    with pytest.raises(ValueError, match="Features are"):
        statistics.add(torch.ones(4))
    with pytest.raises(ValueError, match="1 of 2 pictures have features that are NaN"):
        statistics.add(torch.tensor([[1.0] * 4, [float("nan")] * 4]))
    assert statistics.count == 1
    with pytest.raises(ValueError, match=r"other covariance has shape \(2, 2\) and should have \(3, 3\)"):
        frechet_distance(torch.zeros(3), torch.eye(3), torch.zeros(3), torch.eye(2))


# ----------------------------------------------------------------------------------------- the features
def weights() -> dict[str, torch.Tensor]:
    """Random weights; numpy's numbers, which do not depend on torch."""
    random, found = np.random.default_rng(5), {}
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in FIDInception().state_dict().items()}
    for key in sorted(shapes):
        shape = shapes[key]
        if key.endswith("num_batches_tracked"):
            continue
        values = random.standard_normal(shape, dtype=np.float32)
        if key.endswith("conv.weight"):
            values *= (2.0 / np.prod(shape[1:])) ** 0.5
        elif key.endswith("bn.weight"):
            values = 1.0 + 0.1 * values
        elif key.endswith("running_var"):
            values = 1.0 + 0.2 * np.abs(values)
        else:
            values *= 0.1
        found[key] = torch.from_numpy(values.astype(np.float32))
    return found


def pictures() -> torch.Tensor:
    random = np.random.default_rng(6)
    small = torch.from_numpy(random.random((2, 3, 9, 12))).float()
    return torch.nn.functional.interpolate(small, size=(150, 210), mode="bilinear", align_corners=False)


#: Every 256th feature of `pictures` in torchvision 0.28's Inception-v3 with `weights`, in float64, resized to
#: 299 px as the port is, with padding left out of averages and the maximum in Mixed_7c's pooling branch.
PORT = (
    (0.17728442964415336, 0.21349598381070128, 0.7244590276853523, 0.31675137701352885, 0.2605622067464573,
     0.0, 0.7121151999753423, 0.0),
    (0.1806841810053804, 0.2055777861995609, 0.7186393572625857, 0.32124717745029735, 0.2646601238745363,
     0.0, 0.7171338924390718, 0.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def network():
    return load_inception(weights())


def test_inception_is_torchvisions_with_the_ports_pooling(network):
    with torch.no_grad():
        found = network(pictures())
    assert found.shape == (2, 2048)
    # float32 through 90 layers, seen: 3e-7; with torchvision's own pooling they are 0.3 of the largest off
    np.testing.assert_allclose(found[:, ::256].numpy(), PORT, rtol=0, atol=1e-5)


def test_fid_of_pictures(network):
    """The whole way: the same pictures are at 0, others are not."""
    random = np.random.default_rng(7)
    shown = torch.from_numpy(random.random((6, 3, 40, 40))).float()
    with torch.no_grad():
        # some of the features, for time: the roots take most of it
        features, darker = (network(scale * shown)[:, ::8] for scale in (1.0, 0.3))
    one, two = FeatureStatistics().add(features), FeatureStatistics().add(features[:2]).add(features[2:])
    apart = fid(one, FeatureStatistics().add(darker))
    # singular covariances: roots of what rounding leaves
    assert fid(one, two) == pytest.approx(0.0, abs=1e-3 * apart)
    assert apart > 0.0


def test_files_of_inception(tmp_path, network):
    whole = {**weights(), "fc.weight": torch.zeros(1008, 2048), "AuxLogits.fc.bias": torch.zeros(1000)}
    whole["Mixed_7c.branch_pool.bn.num_batches_tracked"] = torch.tensor(0)
    torch.save(whole, tmp_path / "inception.pth")
    again = load_inception(tmp_path / "inception.pth")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), network.parameters(), strict=True))
    with pytest.raises(ValueError, match="is not Inception-v3 with torchvision's names"):
        load_inception({"features.0.weight": torch.zeros(1)})
    del whole["Mixed_5b.branch1x1.conv.weight"]
    with pytest.raises(ValueError, match=r"1 tensor is missing: Mixed_5b\.branch1x1\.conv\.weight"):
        load_inception(whole)
