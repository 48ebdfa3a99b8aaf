"""A run on two FSDP2 ranks against the same run in one process; saved, resumed, and on another number."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from tests.training.tiny_run import batch, config, networks
from tests.training.two_ranks import run as on_two_ranks
from training.distill.schedule import turn
from training.networks.fsdp import device_mesh, shard_networks
from training.run.checkpoint import Checkpoints
from training.run.loop import Trainer

#: Both kinds of generator turn, and four updates of the fake score between each two.
STEPS = 12
SAVED_AT = 6


def a_run(output, ranks: int, *overrides):
    """The run, and where its batches come from: two samples per step, however many ranks share them."""
    settings = config(f"output={output}", f"batch={2 // ranks}", *overrides)
    # float32 tells less: clamps of the depth network turn rounding into 2e-3 of the generator's gradient
    nets = networks(settings, double=True)
    mine = (0, 1)
    if ranks > 1:
        mine = (dist.get_rank(),)
        shard_networks(nets, settings, device_mesh("cpu"), batch(turn(0, settings), settings, mine).prompt)
    return Trainer(settings, nets), lambda now, _i: batch(now, settings, mine)


def told(step):
    return {"shallow": step.turn.shallow, "generator": step.turn.generator, "norms": dict(step.norms)}


def weights(run):
    """Whole weights of what is trained, by name."""
    found = {}
    for name, network in run.trained.items():
        for key, value in network.state_dict().items():
            found[f"{name}/{key}"] = value.full_tensor() if hasattr(value, "full_tensor") else value.clone()
    return found


def straight_and_resumed(folder):
    """On every rank: 12 steps; 6, saved, and the other 6 in a new run."""
    first, source = a_run(folder, 2)
    checkpoints = Checkpoints(f"{folder}/checkpoints", first.config.model_dump(mode="json"))
    log = []
    for step in range(STEPS):
        if step == SAVED_AT:
            checkpoints.save(step, first.trained, first.optimisers)
        log.append(told(first.step(step, source)))
    second, source = a_run(folder, 2)
    resumed = checkpoints.load(second.trained, second.optimisers)
    again = [told(second.step(step, source)) for step in range(resumed.step, STEPS)]
    return {
        "log": log,
        "again": again,
        "step": resumed.step,
        "weights": weights(first),
        "resumed": weights(second),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parallel")


@pytest.fixture(scope="module")
def found(folder):
    return on_two_ranks(straight_and_resumed, str(folder), folder=folder)


def by_itself(folder):
    """In one process: 12 steps; and three steps on from what the two ranks saved."""
    run, source = a_run(folder, 1)
    log = [told(run.step(step, source)) for step in range(STEPS)]
    run, source = a_run(folder, 1)
    # the batch of a rank is a matter of how many there are
    checkpoints = Checkpoints(
        f"{folder}/checkpoints", run.config.model_dump(mode="json"), may_change=("batch",)
    )
    resumed = checkpoints.load(run.trained, run.optimisers)
    on = [told(run.step(step, source)) for step in range(resumed.step, resumed.step + 3)]
    return {"log": log, "step": resumed.step, "on": on}


@pytest.fixture(scope="module")
def alone(found, folder):
    """In a fresh process like the ranks', whatever other tests have left in this one."""
    return on_two_ranks(by_itself, str(folder), folder=folder, world=1)


def test_norms_are_those_of_one_process(found, alone, capsys):
    log = alone["log"]
    turns = [(step["shallow"], step["generator"]) for step in log]
    assert {(True, True), (False, True), (True, False), (False, False)} == set(turns)
    worst = {}
    for ours, theirs in zip(found["log"], log, strict=True):
        assert ours["norms"].keys() == theirs["norms"].keys()
        for name, norm in theirs["norms"].items():
            assert norm > 1e-8
            worst[name] = max(worst.get(name, 0.0), abs(ours["norms"][name] / norm - 1))
    with capsys.disabled():
        print("\ntwo ranks and one process:", ", ".join(f"{name} {off:.1e}" for name, off in worst.items()))
    # the bound: sums in another order, which Adam's steps carry on
    assert max(worst.values()) <= 1e-4


def test_resumed_is_bit_equal(found):
    assert found["step"] == SAVED_AT
    assert found["again"] == found["log"][SAVED_AT:]
    assert found["resumed"].keys() == found["weights"].keys()
    for name, value in found["weights"].items():
        assert torch.equal(found["resumed"][name], value), name


def test_two_ranks_go_on_in_one(found, alone):
    assert alone["step"] == SAVED_AT
    for done, before in zip(alone["on"], found["log"][SAVED_AT:], strict=False):
        for name, norm in before["norms"].items():
            assert done["norms"][name] == pytest.approx(norm, rel=1e-4), name  # as above
