"""The runner in two processes: it trains, saves, goes on in one, and stops together."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.distributed as dist

from tests.training.tiny_run import SMOKE
from tests.training.tiny_training import CHEAP, command, everything, lines, sets, step_numbers
from tests.training.two_ranks import run as in_two
from training.config.run import load_config
from training.distill.batch import NotFinite
from training.run import runner
from training.run.checkpoint import latest
from training.run.source import PackedSource

STEPS = 4


class Broken(PackedSource):
    """Photos of step 1 that are no numbers, on the second rank alone."""

    def __call__(self, turn, i):
        batch = super().__call__(turn, i)
        if turn.step == 1 and dist.get_rank() == 1:
            batch.mean.fill_(torch.nan)
        return batch


def on_two_ranks(whole: str, broken: str, toy: list[str]):
    """Train four steps; then a run that one rank's batch stops."""
    given = [*CHEAP, *toy, "optimiser.lr=1e-6", "optimiser.fake_lr=1e-6", "optimiser.focus_lr=1e-6"]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        runner.run(load_config(SMOKE, [*given, f"steps={STEPS}", f"output={whole}"]), "cpu")
    met = dist.is_initialized()
    runner.PackedSource = Broken
    said = ""
    try:
        runner.run(load_config(SMOKE, [*given, "steps=3", f"output={broken}"]), "cpu")
    except NotFinite as error:
        said = str(error)
    every = [None] * dist.get_world_size()
    dist.all_gather_object(every, (said, [str(w.message) for w in heard], met))
    return every


@pytest.mark.slow
def test_two_ranks(tmp_path, caplog):
    toy = sets(tmp_path / "sets", 8)
    whole, broken, alone = (tmp_path / name for name in ("whole", "broken", "alone"))
    every = in_two(on_two_ranks, str(whole), str(broken), toy, folder=tmp_path)

    assert all(met for _, _, met in every)
    assert not [text for _, heard, _ in every for text in heard if "view" in text]
    assert step_numbers(whole) == list(range(STEPS))
    assert lines(whole, "started")[0]["world"] == 2
    assert lines(whole, "started")[0]["global_batch"] == 2

    (first, second) = (said for said, _, _ in every)
    assert first.startswith("Step 1 stopped: A value on another rank is not finite")
    assert second.startswith("Step 1 stopped: The loss critic is not finite")
    (saved,) = broken.glob("not_finite_*.safetensors")
    assert str(saved) in second
    assert step_numbers(broken) == [0]
    assert latest(broken / "checkpoints") is None

    rates = ("optimiser.lr=1e-6", "optimiser.fake_lr=1e-6", "optimiser.focus_lr=1e-6")
    given = (*toy, *rates, "saving.every=6")
    assert command(2, whole, *given, f"steps={STEPS + 1}") == 1
    assert "global batch of 2" in caplog.records[-1].getMessage()
    assert command(2, alone, *given, "accumulation=2", f"steps={STEPS}") == 0
    of_two = everything(whole)
    # one process with twice the batches: the same samples, and sums in another order
    for key, told in everything(alone).items():
        if ".exp_avg" in key or not told.is_floating_point():
            continue
        other = of_two[key]
        # Adam turns rounding of a gradient near zero into a step of up to the rate: four of 1e-6, both ways
        assert torch.allclose(told, other, rtol=0, atol=8.1e-6), key
    assert command(2, whole, *given, "accumulation=2", f"steps={STEPS + 1}") == 0
    assert step_numbers(whole) == list(range(STEPS + 1))
    assert latest(whole / "checkpoints").name == f"step_{STEPS + 1:06d}"
