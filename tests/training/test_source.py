"""Batches of a run: which samples a step reads, by set, epoch and number of ranks."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from lens_models.generator.camera_words import with_camera_words
from tests.training.tiny_run import config
from training.data.pack import PackedWriter, Record
from training.distill import schedule
from training.networks.models import Prompt
from training.run.source import PackedSource

COUNT, SIDE = 8, 8


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Two sets whose latents hold their samples' numbers, as overrides."""
    folder = tmp_path_factory.mktemp("sets")
    for name, f_number in (("deep", 16.0), ("shallow", 2.0)):
        with PackedWriter(folder / name, about={}) as writer:
            for i in range(COUNT):
                mean = torch.full((4, SIDE, SIDE), float(i))
                writer.add(Record(f"{name}-{i}", mean, mean, f_number, 50.0 + i, 36.0, f"{name} {i}"))
    return [f"data.{name}={folder / name}" for name in ("deep", "shallow")]


def text(prompts):
    """Encoders that say how long the prompts are."""
    told = torch.tensor([float(len(prompt)) for prompt in prompts])
    return Prompt(told[:, None, None].expand(-1, 3, 2), told[:, None])


def read(source, settings, step):
    """The samples' numbers and places of all accumulations of a step."""
    turn = schedule.turn(step, settings)
    batches = [source(turn, i) for i in range(settings.accumulation)]
    numbers = torch.cat([batch.mean[:, 0, 0, 0] for batch in batches]).int().tolist()
    return turn.set_name, numbers, [place for batch in batches for place in batch.samples]


@pytest.mark.parametrize("fake_updates", range(1, 7))
@pytest.mark.parametrize("stage", [1, 2])
def test_turns_before_is_what_counting_gives(fake_updates, stage):
    settings, seen = config(f"fake_updates={fake_updates}", f"stage={stage}"), Counter()
    for step in range(60):
        name = schedule.turn(step, settings).set_name
        assert schedule.turns_before(step, settings) == seen[name], step
        seen[name] += 1
    assert len(seen) == stage


def test_an_epoch_has_every_sample_once(toy):
    settings = config(*toy, "batch=2", "fake_updates=3")
    source, found = PackedSource(settings, text), {"deep": [], "shallow": []}
    for step in range(24):
        name, numbers, _ = read(source, settings, step)
        found[name] += numbers
    source.close()
    for name, numbers in found.items():
        assert len(numbers) == 24, name
        epochs = [numbers[i : i + COUNT] for i in range(0, len(numbers), COUNT)]
        assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs), name
        assert epochs[0] != epochs[1]
    assert found["deep"] != found["shallow"]


@pytest.mark.parametrize(("world", "accumulation", "batch"), [(1, 2, 2), (2, 2, 1), (2, 1, 2), (4, 1, 1)])
def test_the_global_batch_is_the_same_for_any_ranks(toy, world, accumulation, batch):
    whole = config(*toy, "batch=4")
    cut = config(*toy, f"batch={batch}", f"accumulation={accumulation}")
    alone = PackedSource(whole, text)
    ranks = [PackedSource(cut, text, rank=rank, world=world) for rank in range(world)]
    for step in range(8):
        name, numbers, places = read(alone, whole, step)
        parts = [read(rank, cut, step) for rank in ranks]
        assert {part[0] for part in parts} == {name}
        assert [n for part in parts for n in part[1]] == numbers
        assert [p for part in parts for p in part[2]] == places == [0, 1, 2, 3]
    for source in (alone, *ranks):
        assert source.global_batch == 4
        source.close()


def test_a_step_is_read_the_same_out_of_order(toy):
    settings = config(*toy)
    source = PackedSource(settings, text)
    forth = [read(source, settings, step) for step in range(12)]
    back = [read(source, settings, step) for step in reversed(range(12))]
    source.close()
    assert forth == back[::-1]


def test_what_a_batch_brings(toy):
    settings = config(*toy, "prompts=depth_of_field", "teacher_prompts=suffix")
    source = PackedSource(settings, text)
    first = source(schedule.turn(0, settings), 0)
    source.close()
    number = int(first.mean[0, 0, 0, 0])
    assert first.f_number.tolist() == [16.0]
    assert first.focal_mm.tolist() == [50.0 + number]
    assert first.sensor_mm.tolist() == [36.0]
    told = len(with_camera_words(f"deep {number}", "depth_of_field", 16.0, 50.0))
    assert told > len(f"deep {number}")
    assert first.pooled.tolist() == first.teacher_pooled.tolist() == [[told]]
    assert set(source.identities) == {"deep", "shallow"}
