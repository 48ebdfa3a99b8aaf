"""Sample grids: eight apertures of one sharp picture, the same noise every time."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from lens_models.stops import FULL_STOPS, label
from tests.training.tiny_run import config, networks
from training.images import save_png
from training.networks.text import build_text
from training.run import samples
from training.run.loop import Trainer


@pytest.fixture(scope="module")
def text():
    return build_text(config())


def run(*overrides):
    settings = config("checkpointing=false", "log.sample_prompts=[a, b]", *overrides)
    return Trainer(settings, networks(settings))


def test_one_picture_at_eight_apertures(text):
    shown, told = samples.photographs(run(), text, "a disc", 0)
    assert shown.shape == (8, 3, 64, 64)
    assert told == [label(f_number) for f_number in FULL_STOPS]
    again, _ = samples.photographs(run(), text, "a disc", 0)
    assert torch.equal(shown, again)
    other, _ = samples.photographs(run(), text, "a disc", 1)
    assert not torch.equal(shown, other)
    # the wider the aperture, the further from the picture at the narrowest
    apart = [(picture - shown[-1]).abs().mean().item() for picture in shown]
    assert apart[0] > apart[4] >= apart[-1] == 0.0


@pytest.mark.parametrize(("override", "count"), [("seed=0", 1), ("prompts=exif", 8)])
def test_stage_1_has_eight_only_when_it_is_told_the_aperture(text, override, count):
    shown, told = samples.photographs(run("stage=1", override), text, "a disc", 0)
    assert len(shown) == len(told) == count
    if count > 1:
        assert not torch.equal(shown[0], shown[-1])


def test_the_grid_is_a_row_per_prompt(text, tmp_path):
    grid = samples.sheet(run(), text)
    save_png(tmp_path / "samples" / "grid.png", grid)
    with Image.open(tmp_path / "samples" / "grid.png") as picture:
        assert picture.size == (grid.shape[1], grid.shape[0])
    assert grid.shape[1] == pytest.approx(8 * 256, rel=0.05)  # the gaps between tiles
    assert grid.shape[0] >= 2 * 256
