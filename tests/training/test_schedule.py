"""Turns and draws: ratios, and that both depend on nothing but their arguments."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from tests.training.tiny_run import config
from training.distill import rng, schedule


def turns(count, *overrides):
    settings = config(*overrides)
    return [schedule.turn(step, settings) for step in range(count)]


@pytest.mark.parametrize("ratio", [1, 2, 4, 5])
def test_one_generator_turn_in_so_many(ratio):
    found = turns(20 * ratio, f"fake_updates={ratio}")
    assert [t.step for t in found if t.generator] == list(range(0, 20 * ratio, ratio))


@pytest.mark.parametrize("ratio", [1, 2, 4, 5])
def test_deep_and_shallow_alternate_for_both(ratio):
    found = turns(20 * ratio, f"fake_updates={ratio}")
    assert [t.shallow for t in found if t.generator] == [False, True] * 10
    assert Counter(t.shallow for t in found) == {False: 10 * ratio, True: 10 * ratio}


def test_stage_1_is_always_deep():
    assert not any(t.shallow for t in turns(20, "stage=1"))


def test_every_student_step_gets_its_turn():
    found = turns(2000)
    share = Counter(t.k for t in found if t.generator)
    assert set(share) == {0, 1, 2, 3}
    # 400 draws: 100 each, deviation 8.7
    assert all(abs(n - 100) < 45 for n in share.values())
    assert {t.k for t in turns(40, "timesteps=[999,499]")} == {0, 1}


def test_the_critic_joins_at_its_step():
    assert [t.gan for t in turns(6, "loss.gan_from_step=4")] == [False] * 4 + [True] * 2


def test_a_turn_depends_on_step_and_config_alone():
    torch.manual_seed(1)
    first = turns(30)
    torch.manual_seed(2)
    assert turns(30) == first
    assert turns(30, "seed=1") != first


def test_the_rate_rises_and_stays():
    settings = config("optimiser.warmup_steps=4")
    assert [schedule.rate(i, settings) for i in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert schedule.rate(0, config("optimiser.warmup_steps=0")) == 1.0


def test_draws_are_pure_and_belong_to_their_sample():
    whole = rng.normal(3, 5, [0, 1, 2, 3], "student 0", (4, 2))
    torch.manual_seed(9)
    torch.randn(10)
    assert torch.equal(rng.normal(3, 5, [2, 3], "student 0", (4, 2)), whole[2:])
    others = [
        rng.normal(4, 5, [0], "student 0", (4, 2)),
        rng.normal(3, 6, [0], "student 0", (4, 2)),
        rng.normal(3, 5, [0], "student 1", (4, 2)),
        whole[1:2],
    ]
    assert all(not torch.equal(other, whole[:1]) for other in others)


def test_draws_leave_the_shared_generator_alone():
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    rng.normal(0, 0, [0], "a", (8,))
    rng.integers(0, 0, [0], "b", 0, 9)
    assert torch.equal(torch.rand(3), expected)


def test_drawn_timesteps_cover_their_range():
    found = rng.integers(0, 0, range(4000), "dmd t", 20, 980)
    # 4000 draws of 960 numbers: each end is missed by 10 or more with probability e^-41
    assert 20 <= found.min() < 30
    assert 970 <= found.max() < 980


def test_noise_is_unit_normal():
    found = rng.normal(0, 0, range(8), "noise", (4, 32, 32))
    # 32768 draws: mean ± 0.0055, deviation ± 0.0039; six of them
    assert abs(found.mean().item()) < 0.033
    assert abs(found.std().item() - 1.0) < 0.024
