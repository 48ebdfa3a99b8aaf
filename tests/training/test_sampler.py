"""The order of the samples: the same on any number of ranks and after any stop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.packed import CorruptSample
from training.data.sampler import Batches, EpochSampler, order


class Numbers:
    """Sample i is i; some are corrupt. Counts what was read."""

    def __init__(self, n: int, corrupt=()):
        self.n, self.bad = n, set(corrupt)

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if index in self.bad:
            raise CorruptSample(f"Sample {index} is damaged.")
        return index


def whole(n, seed, batch, world, step):
    ranks = [EpochSampler(n, seed=seed, global_batch=batch, rank=r, world=world) for r in range(world)]
    return [i for rank in ranks for i in rank.indices(step)]


@given(st.integers(1, 300), st.integers(0, 2**32), st.integers(1, 5), st.integers(0, 200))
def test_every_world_size_sees_the_same_batches(n, seed, quarter, step):
    batch = 4 * quarter
    one = whole(n, seed, batch, 1, step)
    assert len(one) == batch
    assert one == whole(n, seed, batch, 2, step) == whole(n, seed, batch, 4, step)


@given(st.integers(1, 200), st.integers(0, 2**32), st.integers(1, 16), st.integers(0, 3))
def test_every_epoch_sees_every_sample_once(n, seed, batch, epoch):
    sampler = EpochSampler(n, seed=seed, global_batch=batch)
    stream = [sampler.sample(p) for p in range(epoch * n, (epoch + 1) * n)]
    assert sorted(stream) == list(range(n))


@given(
    st.integers(5, 120),
    st.integers(0, 2**32),
    st.integers(0, 30),
    st.sampled_from([1, 2, 4]),
    st.sets(st.integers(0, 119), max_size=3),
)
def test_a_resumed_run_goes_on_exactly(n, seed, stop, world, bad):
    """One rank up to `stop`, then `world` ranks; corrupt samples included."""
    bad = {b for b in bad if b < n}
    data = Numbers(n, bad)

    def batches(rank=0, world=1, step=0):
        sampler = EpochSampler(n, seed=seed, global_batch=4, rank=rank, world=world)
        return Batches(data, sampler, step=step, max_corrupt_share=1.0)

    straight = batches()
    wanted = [next(straight) for _ in range(stop + 3)]
    first = batches()
    got = [next(first) for _ in range(stop)]
    assert first.step == stop
    rest = [batches(rank, world) for rank in range(world)]
    for rank in rest:
        rank.step = first.step
    got += [[i for rank in rest for i in next(rank)] for _ in range(3)]
    assert got == wanted
    assert not any(bad & set(batch) for batch in got)


def test_orders_differ_and_are_those_of_philox():
    # written out as numpy documents it: the order is part of the format of a run
    wanted = np.random.Generator(np.random.Philox(key=np.array([7, 3], np.uint64))).permutation(100)
    assert np.array_equal(order(7, 3, 100), wanted)
    assert not np.array_equal(order(7, 3, 100), order(7, 4, 100))
    assert not np.array_equal(order(7, 3, 100), order(8, 3, 100))


def test_a_known_order():
    """Fixed numbers: a change of the order would break every resumed run."""
    assert order(0, 0, 10).tolist() == KNOWN


KNOWN = [0, 7, 8, 6, 9, 5, 1, 3, 2, 4]


def test_corrupt_samples_are_counted_and_replaced(caplog):
    sampler = EpochSampler(1000, seed=1, global_batch=10)
    bad = {sampler.sample(3), sampler.sample(14)}
    batches = Batches(Numbers(1000, bad), sampler, max_corrupt_share=0.002)
    drawn = [next(batches) for _ in range(100)]
    assert batches.corrupt == bad
    assert caplog.text.count("is left out") == 2
    flat = [i for batch in drawn for i in batch]
    changed = [p for p, i in enumerate(flat) if i != sampler.sample(p)]
    assert changed == [3, 14]


def test_the_run_stops_past_the_share():
    sampler = EpochSampler(1000, seed=1, global_batch=10)
    bad = {sampler.sample(p) for p in (3, 14, 25)}
    batches = Batches(Numbers(1000, bad), sampler, max_corrupt_share=0.002)
    next(batches)
    next(batches)
    with pytest.raises(RuntimeError, match=r"3 of 1000 samples are corrupt, more than the 0\.20%"):
        next(batches)


def test_a_set_of_nothing_but_damage_ends():
    batches = Batches(
        Numbers(100, range(100)), EpochSampler(100, seed=0, global_batch=1), max_corrupt_share=1.0
    )
    with pytest.raises(RuntimeError, match="in a row cannot be read"):
        next(batches)


def test_other_errors_are_not_swallowed():
    class Broken(Numbers):
        def __getitem__(self, index):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        next(Batches(Broken(4), EpochSampler(4, seed=0, global_batch=1)))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n": 0, "global_batch": 1}, "0 samples"),
        ({"n": 5, "global_batch": 6, "world": 4}, "6 does not divide among 4 ranks"),
        ({"n": 5, "global_batch": 4, "world": 2, "rank": 2}, "Rank 2 of 2"),
        ({"n": 5, "global_batch": 4, "seed": -1}, "seed is -1"),
    ],
)
def test_impossible_samplers_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        EpochSampler(**({"seed": 0} | arguments))


def test_a_sampler_of_another_set_is_refused():
    with pytest.raises(ValueError, match="for 5 samples and the set has 4"):
        Batches(Numbers(4), EpochSampler(5, seed=0, global_batch=1))
