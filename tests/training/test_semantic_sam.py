"""Semantic Segment Anything: names and votes against hand counts, a planted picture, its options."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from lens_models.metrics.consistency import UNLABELLED, content_consistency
from training.evaluate.metrics.naming import caption_nouns, spacy_nouns
from training.evaluate.metrics.sam_masks import (
    MaskOptions,
)
from training.evaluate.metrics.semantic_sam import (
    SemanticSam,
    SemanticSamOptions,
    commonest,
    load_segmenter,
    painted,
    plain_name,
    widened,
)

FOLDERS = ("sam", "coco", "ade20k", "blip", "clip", "clipseg")


# ----------------------------------------------------------------------------------- names and cut-outs
def test_cut_outs_by_hand():
    # 10 px wide and 20 high: 20 % more is 1 px on either side and 2 above and below
    assert widened((40, 30, 50, 50), 1.2, 100, 100) == (slice(28, 52), slice(39, 51))
    assert widened((40, 30, 50, 50), 1.0, 100, 100) == (slice(30, 50), slice(40, 50))
    assert widened((40, 30, 50, 50), 1.6, 100, 100) == (slice(24, 56), slice(37, 53))
    assert widened((0, 0, 100, 90), 1.6, 90, 100) == (slice(0, 90), slice(0, 100)), "held by the picture"
    assert widened((99, 0, 100, 1), 1.6, 90, 100) == (slice(0, 1), slice(98, 100))


def test_the_commonest_number():
    assert commonest(torch.tensor([[3, 1], [1, 0]])) == 1
    assert commonest(torch.tensor([2, 5, 5, 2])) == 2, "the lowest of equals"


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("sky-other-merged", "sky"),
        ("door-stuff", "door"),
        ("window-other", "window"),
        ("window-blind", "window-blind"),
        ("wall-wood", "wall"),
        ("wall-other-merged", "wall"),
        ("floor-wood", "floor-wood"),
        ("bed ", "bed"),
    ],
)
def test_names_of_classes(name, plain):
    assert plain_name(name) == plain


@pytest.mark.parametrize(
    ("caption", "nouns"),
    [
        ("a dog sitting on a wooden bench", ["a dog", "a wooden bench"]),
        ("there is a man that is riding a horse", ["a man", "a horse"]),
        ("a table topped with food and two red cups", ["a table", "food", "two red cups"]),
        ("a red on a bed", ["a red", "a bed"]),
        ("the building, a king and a ring", ["the building", "a king", "a ring"]),
        ("a close-up of the man's t-shirt", ["a close-up", "the man's t-shirt"]),
        ("a cat next to a cat", ["a cat"]),
        ("", []),
        ("of the and it", []),
    ],
)
def test_nouns_of_captions(caption, nouns):
    assert caption_nouns(caption) == nouns


def test_without_spacy(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ValueError, match=r"need the library and its model en_core_web_sm.*use nouns"):
        spacy_nouns()


def test_labels_of_pixels_by_hand():
    wide, small = torch.zeros(2, 3, 4, dtype=torch.bool)
    wide[:, :3] = True
    small[0, 1:] = True
    named = [(small, [7]), (wide, [1, 2])]
    expected = torch.full((3, 3, 4), UNLABELLED)
    expected[0, :, :3], expected[1, :, :3] = 1, 2
    expected[:, 0, 1:] = torch.tensor([7, UNLABELLED, UNLABELLED])[:, None]
    assert torch.equal(painted(named, (3, 4), 3), expected)
    assert torch.equal(painted(named[::-1], (3, 4), 3), expected), "the smaller mask is on top in any order"


# ------------------------------------------------------------------------------- a planted picture
class PlantedMasks:
    """The left and the right third of the picture; the middle is in no mask."""

    def masks(self, srgb, on_progress=None):
        found = torch.zeros(2, *srgb.shape[-2:], dtype=torch.bool)
        third = srgb.shape[-1] // 3
        found[0, :, :third] = found[1, :, -third:] = True
        return found


class PlantedClasses:
    """Two classes, told apart by whether red is above a half."""

    def __init__(self, *names):
        self.classes = dict(enumerate(names))

    def top_labels(self, srgb, count):
        assert count == 1
        return (srgb[:, :1] > 0.5).long()


def red(cut: torch.Tensor) -> bool:
    return bool((cut[:, 0] > 0.5).double().mean() > 0.4)


class PlantedNames:
    """Captions by colour, an order of candidates that is given, and a vote that is told where."""

    def __init__(self, order):
        self.order, self.seen = order, []

    def captions(self, cuts):
        self.seen.append([tuple(cut.shape[-2:]) for cut in cuts])
        return ["a rose lying in the garden" if red(cut) else "a lake" for cut in cuts]

    def ranked(self, cuts, candidates, count):
        self.seen.append([tuple(cut.shape[-2:]) for cut in cuts])
        return [sorted(names, key=self.order.index)[:count] for names in candidates]

    def found(self, cuts, names):
        self.seen.append([tuple(cut.shape[-2:]) for cut in cuts])
        # the second name wins where the picture is bright, the first elsewhere
        return [
            torch.stack([torch.full_like(cut[0, 1], 0.5), cut[0, 1], torch.zeros_like(cut[0, 1])][: len(n)])
            for cut, n in zip(cuts, names, strict=True)
        ]


def planted(order) -> tuple[SemanticSam, PlantedNames]:
    names = PlantedNames(order)
    closed = [PlantedClasses("water-other", "flower"), PlantedClasses("sea", "plant")]
    return SemanticSam(PlantedMasks(), closed, names.captions, names.ranked, names.found), names


ORDER = ["a rose", "water", "flower", "the garden", "plant", "sea", "a lake"]


def picture(*, bright: bool) -> torch.Tensor:
    """10 x 30 px: red on the left, black in the middle, blue on the right, with green in some of it."""
    srgb = torch.zeros(3, 10, 30)
    srgb[0, :, :10] = 1.0
    srgb[2, :, 20:] = 1.0
    if bright:
        srgb[1, :6, :10] = 1.0  # 60 of the 100 px of the left mask
    srgb[1, :, 10:13] = 1.0  # beside the mask, so it must not count
    return srgb


def test_a_planted_picture_gives_the_known_labels():
    engine, names = planted(ORDER)
    dark, bright = (engine.named_masks(picture(bright=b)) for b in (False, True))
    assert [labels for _, labels in dark] == [("a rose", "flower", "the garden"), ("water", "sea", "a lake")]
    assert bright[0][1] == ("flower", "a rose", "the garden"), "60 px vote for the second name, 40 do not"
    assert bright[1][1] == ("water", "sea", "a lake")
    # 10 x 10 px of the box: 60 % more is 3 px on either side, 20 % is 1 px, within the picture
    assert names.seen[:3] == [[(10, 13), (10, 13)], [(10, 11), (10, 11)], [(10, 13), (10, 13)]]
    assert len(engine.named_masks(picture(bright=False), 2)[0][1]) == 2


def test_the_sets_of_a_planted_sweep():
    engine, _ = planted(ORDER)
    reports = []
    sweep = torch.stack([picture(bright=False), picture(bright=True), picture(bright=True).flip(-1)])
    labels = engine.top_labels(sweep, on_progress=lambda *told: reports.append(told))
    assert labels.shape == (3, 3, 10, 30)
    words = engine.classes
    assert [words[n] for n in labels[1, :, 0, 0].tolist()] == ["flower", "a rose", "the garden"]
    assert [words[n] for n in labels[0, :, 9, 29].tolist()] == ["water", "sea", "a lake"]
    assert (labels[:, :, :, 10:20] == UNLABELLED).all()
    # the first two share all sets, in another order; the third has its sides changed
    assert content_consistency(labels).shares == (1.0, 0.0)
    assert torch.equal(engine.top_labels(sweep[1:2])[0], labels[1]), "numbers stay from call to call"
    assert reports == [("names", 2, 2)] * 3
    assert set(engine.top_labels(sweep, 1)[:, 0].unique().tolist()) <= {UNLABELLED, *words}
    with pytest.raises(ValueError, match="At least 1 label"):
        engine.top_labels(sweep, 0)


def test_a_picture_without_masks_has_no_labels():
    class NoMasks:
        def masks(self, srgb, on_progress=None):
            return torch.zeros(0, *srgb.shape[-2:], dtype=torch.bool)

    engine, _ = planted(ORDER)
    engine.mask_source = NoMasks()
    assert (engine.top_labels(torch.zeros(1, 3, 4, 5)) == UNLABELLED).all()


# ------------------------------------------------------------------------------- options and folders
def options(folder, **changed) -> SemanticSamOptions:
    return SemanticSamOptions(**({name: str(folder / name) for name in FOLDERS} | changed))


def test_the_published_values():
    known = MaskOptions()
    assert (known.points_per_side, known.least_iou, known.least_stability) == (32, 0.86, 0.92)
    assert (known.box_overlap, known.smallest_region) == (0.7, 100)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"points_per_side": 0}, "points_per_side is 0: at least 1"),
        ({"least_iou": 1.5}, r"least_iou is 1\.5: it must be between 0 and 1"),
        ({"smallest_region": -1}, "smallest_region is -1: it must not be negative"),
        ({"nouns": "verbs"}, 'nouns is "verbs": use one of rule, spacy'),
        ({"masks_per_batch": 0}, "masks_per_batch is 0"),
    ],
)
def test_bad_options_are_a_sentence(tmp_path, changed, said):
    with pytest.raises(ValueError, match=said):
        options(tmp_path, **changed)


def test_folders_that_are_none(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"There is no .*config\.json: give as sam the folder"):
        load_segmenter(options(tmp_path))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match="needs the transformers library: pip install transformers"):
        load_segmenter(options(tmp_path))


def test_chosen_in_a_config(tmp_path):
    from training.config.load import ConfigError
    from training.evaluate.options import load_evaluation

    config = tmp_path / "own.yaml"
    folders = {name: str(tmp_path / name) for name in FOLDERS}
    config.write_text(json.dumps({"metrics": {"segmenter": {"kind": "semantic_sam", **folders}}}))
    chosen = load_evaluation(config, ["metrics.segmenter.points_per_side=16"]).metrics.segmenter
    assert isinstance(chosen, SemanticSamOptions)
    assert (chosen.points_per_side, chosen.clipseg) == (16, folders["clipseg"])
    with pytest.raises(FileNotFoundError, match="give as sam the folder"):
        load_segmenter(chosen)
    with pytest.raises(ConfigError, match=r'there is no key "points" in metrics\.segmenter\.'):
        load_evaluation(config, ["metrics.segmenter.points=16"])
    with pytest.raises(ConfigError, match=r"least_iou is 2\.0: it must be between 0 and 1"):
        load_evaluation(config, ["metrics.segmenter.least_iou=2"])
    one = load_evaluation(config, ["metrics.segmenter=weights/oneformer"])
    assert one.metrics.segmenter == "weights/oneformer"
    assert one.hash != load_evaluation(config).hash
