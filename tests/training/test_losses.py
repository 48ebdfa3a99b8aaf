"""The losses against numbers worked out in plain Python floats."""

from __future__ import annotations

import math

import pytest
import torch

from training.distill import losses

EXACT = {"rel": 1e-12}  # float64 on both sides, a few operations


def row(*values):
    """One sample of one channel and one row, float64."""
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


def test_the_matching_gradient_by_hand():
    x, real, fake = row(1.0, 2.0, -1.0), row(0.5, 2.5, -3.0), row(1.5, 1.0, -1.0)
    # x − real = .5 −.5 2: mean size 1; minus (x − fake) = −.5 1 0
    found = losses.dmd_gradient(x, real, fake).flatten().tolist()
    assert found == pytest.approx([1.0, -1.5, 2.0], **EXACT)


def test_each_sample_is_divided_by_its_own_size():
    x = torch.cat([row(1.0, 1.0), row(100.0, 100.0)])
    real, fake = torch.zeros_like(x), 0.5 * x
    # ((x − 0) − (x − x/2)) / |x| = 1/2 for both
    assert losses.dmd_gradient(x, real, fake).flatten().tolist() == pytest.approx([0.5] * 4, **EXACT)


def test_nothing_to_divide_by_is_no_gradient():
    x = torch.cat([row(1.0, 2.0), row(1.0, 2.0)])
    real = torch.cat([row(1.0, 2.0), row(0.0, 0.0)])
    found = losses.dmd_gradient(x, real, torch.zeros_like(x))
    # first: (0 − x) / 0 is infinite; second: (x − x) / 1.5
    assert found.flatten().tolist() == [0.0, 0.0, 0.0, 0.0]
    found = losses.dmd_gradient(x[:1], x[:1], x[:1])
    assert found.flatten().tolist() == [0.0, 0.0]  # 0 / 0


def test_the_matching_loss_hands_its_gradient_on():
    x = row(1.0, 2.0, -1.0).requires_grad_()
    gradient = row(1.0, -1.5, 2.0)
    loss = losses.dmd_loss(x, gradient)
    assert loss.item() == pytest.approx(0.5 * (1.0 + 2.25 + 4.0) / 3, **EXACT)
    loss.backward()
    assert x.grad.flatten().tolist() == pytest.approx([1 / 3, -0.5, 2 / 3], **EXACT)


def test_the_gan_losses_by_hand():
    def softplus(v):
        return math.log1p(math.exp(v))

    fake, real = torch.tensor([0.3, -2.0]).double(), torch.tensor([1.5, 0.1]).double()
    f, r = fake.tolist(), real.tolist()
    by_hand = (softplus(-f[0]) + softplus(-f[1])) / 2
    assert losses.gan_generator_loss(fake).item() == pytest.approx(by_hand, **EXACT)
    by_hand = (softplus(f[0]) + softplus(f[1])) / 2 + (softplus(-r[0]) + softplus(-r[1])) / 2
    assert losses.gan_critic_loss(real, fake).item() == pytest.approx(by_hand, **EXACT)


def test_the_fake_score_loss_is_a_mean_square():
    assert losses.fake_loss(row(1.0, 3.0), row(0.0, 5.0)).item() == pytest.approx(2.5, **EXACT)


@pytest.mark.parametrize(("delta", "expected"), [(1.0, (0.125 + 1.5) / 2), (0.25, (0.09375 + 0.46875) / 2)])
def test_the_huber_loss_by_hand(delta, expected):
    # errors 0.5 and 2 m: e²/2 within delta, delta (|e| − delta/2) beyond
    focus = torch.tensor([3.5, 1.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([3.0, 3.0], dtype=torch.float64, requires_grad=True)
    loss = losses.focus_huber(focus, reference, delta)
    assert loss.item() == pytest.approx(expected, **EXACT)
    loss.backward()
    slopes = [min(0.5, delta) / 2, -delta / 2]
    assert focus.grad.tolist() == pytest.approx(slopes, **EXACT)
    assert reference.grad is None


def test_the_total_of_the_paper():
    assert losses.total(0.5, 0.25, 0.01, (1.0, 1.0, 200.0)) == pytest.approx(2.75, **EXACT)
