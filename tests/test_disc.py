"""The disc against a true disc: second moment, edge spread, coverage."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lens_models import disc


def moments(kernel: np.ndarray) -> tuple[float, float, float]:
    axis = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    return kernel.sum(), (kernel * axis**2).sum(), (kernel.T * axis**2).sum()


@given(st.floats(0.0, 150.0))
def test_second_moment_is_that_of_a_disc_at_every_radius(radius):
    total, variance_x, variance_y = moments(disc.disc_kernel(radius))
    assert total == pytest.approx(1.0, abs=1e-12)
    assert variance_x == pytest.approx(radius**2 / 4, rel=1e-9, abs=1e-12)  # float64 sums
    assert variance_y == pytest.approx(radius**2 / 4, rel=1e-9, abs=1e-12)


def test_levels_are_the_published_sequence_and_strictly_wider():
    levels = disc.levels_for(200.0)
    steps = np.diff(levels.size)
    lower = levels.size[:-1]
    assert levels.size[0] == 1.0
    assert np.all(steps[lower < 4] == 0.25)
    assert np.all(steps[(lower >= 4) & (lower < 12)] == 0.5)
    assert np.allclose(steps[lower >= 12], np.maximum(1.0, lower[lower >= 12] / 32))
    assert np.all(np.diff(levels.variance) > 0)
    assert levels.variance[0] == 0.0
    assert levels.variance[-1] >= 100.0**2 > levels.variance[-2]


def test_level_sum_and_moment_by_brute_force():
    for k, size in enumerate(disc.levels_for(9.0).size):
        reach = int(size) + 1
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        kernel = np.clip(size - np.hypot(x, y), 0, 1)
        assert disc.levels_for(9.0).total[k] == pytest.approx(kernel.sum(), rel=1e-13)
        assert disc.levels_for(9.0).variance[k] == pytest.approx(
            (kernel * x**2).sum() / kernel.sum(), rel=1e-12
        )


@pytest.mark.parametrize("radius", [3.0, 5.5, 8.0, 14.3, 30.0, 63.0])
def test_edge_spread_function(radius):
    """A half plane behind the lens: column sums of the kernel, accumulated, against the analytic integral."""
    kernel = disc.disc_kernel(radius)
    spread = np.cumsum(kernel.sum(axis=0))[:-1]
    t = np.arange(len(spread)) - kernel.shape[0] // 2 + 0.5  # edges lie between pixel centres
    inside = np.clip(t, -radius, radius)
    exact = 0.5 + (inside * np.sqrt(radius**2 - inside**2) / radius**2 + np.arcsin(inside / radius)) / np.pi
    # a disc of a few pixels is a staircase on any lattice (8e-3 at r = 3); from 7 px on 2e-3 holds
    assert np.abs(spread - exact).max() < (2e-3 if radius >= 7 else 3e-3 if radius >= 5 else 8e-3)


def area_coverage_disc(radius: float, side: int, samples: int = 16) -> np.ndarray:
    """Share of every pixel's square that a sharp disc covers: what a perfect sensor would record."""
    axis = (np.arange(side * samples) + 0.5) / samples - side / 2
    fine = (np.hypot(axis[:, None], axis[None, :]) <= radius).astype(float)
    kernel = fine.reshape(side, samples, side, samples).mean(axis=(1, 3))
    return kernel / kernel.sum()


@pytest.mark.parametrize(
    ("radius", "limit"),
    [(2.5, 0.04), (3.0, 0.04), (3.7, 0.04), (4.4, 0.04), (5.0, 0.015), (7.3, 0.015), (20.0, 0.015)],
)
def test_displaced_energy(radius, limit):
    kernel = disc.disc_kernel(radius)
    difference = kernel - area_coverage_disc(radius, kernel.shape[0])
    assert np.abs(difference).sum() / 2 <= limit


def test_mixture_is_differentiable_and_flat_at_focus():
    levels = disc.levels_for(5.0)
    radius = torch.tensor([0.0, 0.4, 3.3], dtype=torch.float64, requires_grad=True)
    _, t = levels.mix(radius)
    t.sum().backward()
    assert radius.grad[0] == 0.0
    assert (radius.grad[1:] > 0).all()


def test_zero_radius_is_the_identity():
    assert disc.disc_kernel(0.0)[disc.disc_kernel(0.0).shape[0] // 2].max() == 1.0
    assert disc.disc_kernel(0.0).sum() == 1.0
