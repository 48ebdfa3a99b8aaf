"""Semantic Segment Anything: its maths against hand counts and naive loops, and tiny networks end to end."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from lens_models.metrics.consistency import UNLABELLED, content_consistency
from training.evaluate.metrics.load import load_segmenter
from training.evaluate.metrics.naming import BLIP_USUAL, CLIP_USUAL, caption_nouns, spacy_nouns
from training.evaluate.metrics.preparation import Preparation
from training.evaluate.metrics.sam_masks import (
    MaskOptions,
    SamMasks,
    boxes_of,
    connected_components,
    nms,
    point_grid,
    seen_within,
    stability,
    tidied,
    without_small_regions,
)
from training.evaluate.metrics.semantic_sam import (
    SemanticSam,
    SemanticSamOptions,
    Vocabulary,
    commonest,
    painted,
    plain_name,
    widened,
)

FOLDERS = ("sam", "coco", "ade20k", "blip", "clip", "clipseg")


# ----------------------------------------------------------------------------------------------- masks
def test_the_grid_of_points():
    assert point_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    assert len(point_grid(32)) == 1024
    assert point_grid(1).tolist() == [[0.5, 0.5]]


def test_the_size_sam_sees():
    assert seen_within(600, 800, 1024) == (768, 1024)
    assert seen_within(801, 600, 1024) == (1024, 767)  # 767.04
    assert seen_within(1, 5000, 1024) == (1, 1024)


def test_stability_by_hand():
    logits = torch.tensor(
        [[[2.0, 0.5], [-0.5, -2.0]], [[2.0, 2.0], [2.0, -3.0]], [[-5.0, -5.0], [-5.0, -5.0]]]
    )
    found = stability(logits.double(), 1.0).tolist()
    assert found[:2] == [pytest.approx(1 / 3, abs=1e-7), 1.0]  # counts are divided in float32
    assert math.isnan(found[2]), "nothing is found at either threshold"


def test_boxes_against_a_loop():
    torch.manual_seed(0)
    masks = torch.rand(20, 9, 13) > 0.96
    masks[0] = False
    for mask, box in zip(masks, boxes_of(masks).tolist(), strict=True):
        places = mask.nonzero().tolist()
        rows, columns = [y for y, _ in places], [x for _, x in places]
        assert box == ([min(columns), min(rows), max(columns) + 1, max(rows) + 1] if places else [0] * 4)


def naive_nms(boxes: list[list[float]], scores: list[float], overlap: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        for j in kept:
            a, b = boxes[i], boxes[j]
            width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            common = max(width, 0) * max(height, 0)
            areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
            if common > overlap * (areas - common):
                break
        else:
            kept.append(i)
    return kept


def test_suppression_by_hand():
    # the second covers 8 of the first's 10 columns and no more: IoU 0.8
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 8, 10], [20, 0, 30, 10]])
    scores = torch.tensor([0.8, 0.9, 0.7])
    assert nms(boxes, scores, 0.7).tolist() == [1, 2]
    assert nms(boxes, scores, 0.8).tolist() == [1, 0, 2], "only above the threshold"
    assert nms(boxes[:0], scores[:0], 0.7).tolist() == []


@pytest.mark.parametrize("overlap", [0.1, 0.4, 0.7])
def test_suppression_against_a_loop(overlap):
    generator = torch.Generator().manual_seed(3)
    corner = torch.randint(0, 40, (120, 2), generator=generator)
    boxes = torch.cat([corner, corner + torch.randint(1, 30, (120, 2), generator=generator)], dim=1)
    scores = torch.randint(0, 50, (120,), generator=generator).double()  # with equal ones
    found = nms(boxes, scores, overlap).tolist()
    assert found == naive_nms(boxes.tolist(), scores.tolist(), overlap)
    assert 1 < len(found) < 120


def spiral(side: int) -> torch.Tensor:
    """One region that winds inwards: the longest way that labels have to go."""
    mask, x, y, step = torch.zeros(side, side, dtype=torch.bool), 0, 0, (1, 0)
    length, turns = side - 1, 0
    mask[0, 0] = True
    while length > 0:
        for _ in range(length):
            x, y = x + step[0], y + step[1]
            mask[y, x] = True
        step, turns = (-step[1], step[0]), turns + 1
        if turns >= 3 and turns % 2:
            length -= 2
    return mask


@pytest.mark.parametrize("case", ["noise", "spiral", "empty", "full"])
def test_regions_are_those_of_scipy(case):
    torch.manual_seed(1)
    mask = {
        "noise": torch.rand(40, 56) > 0.7,
        "spiral": spiral(31),
        "empty": torch.zeros(5, 6, dtype=torch.bool),
        "full": torch.ones(5, 6, dtype=torch.bool),
    }[case]
    found = connected_components(mask)
    known, count = ndimage.label(mask.numpy(), structure=[[1, 1, 1]] * 3)
    pairs = set(zip(found.flatten().tolist(), known.flatten().tolist(), strict=True))
    assert len(pairs) == len(found.unique()) == len(set(known.flatten().tolist()))
    assert (0, 0) in pairs or case == "full"
    assert count == (1 if case in ("spiral", "full") else 0 if case == "empty" else count)


def test_small_regions_by_hand():
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[1:8, 1:8] = True
    mask[3:5, 3:5] = False  # a hole of 4
    mask[10, 10] = mask[11, 11] = True  # a speck of 2, joined at a corner
    whole = torch.zeros_like(mask)
    whole[1:8, 1:8] = True
    assert torch.equal(without_small_regions(mask, 5), whole)
    assert torch.equal(without_small_regions(mask, 2), mask)
    three = without_small_regions(mask, 3)
    assert not three[10:, 10:].any()
    assert not three[3, 3]
    specks = torch.zeros(12, 12, dtype=torch.bool)
    specks[0, 0] = specks[5:7, 5] = True
    assert without_small_regions(specks, 50).nonzero().tolist() == [[5, 5], [6, 5]]
    assert not without_small_regions(torch.zeros(12, 12, dtype=torch.bool), 50).any()


def test_of_masks_that_become_alike_the_unchanged_stays():
    clean = torch.zeros(20, 20, dtype=torch.bool)
    clean[2:12, 2:12] = True
    speckled = clean.clone()
    speckled[18, 18] = True
    other = torch.zeros_like(clean)
    other[14:20, 2:10] = True
    found = tidied(torch.stack([speckled, clean, other]), 4, 0.7)
    assert torch.equal(found, torch.stack([clean, other]))
    assert len(tidied(torch.stack([speckled, clean, other]), 0, 0.7)) == 3


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


def test_numbers_of_labels_stay():
    words = Vocabulary()
    assert [words.number(label) for label in ("sky", "a dog", "sky", "grass", "a dog")] == [0, 1, 0, 2, 1]
    assert words.classes == {0: "sky", 1: "a dog", 2: "grass"}


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
    assert [one.labels for one in dark] == [("a rose", "flower", "the garden"), ("water", "sea", "a lake")]
    assert bright[0].labels == ("flower", "a rose", "the garden"), "60 px vote for the second name, 40 do not"
    assert bright[1].labels == ("water", "sea", "a lake")
    # 10 x 10 px of the box: 60 % more is 3 px on either side, 20 % is 1 px, within the picture
    assert names.seen[:3] == [[(10, 13), (10, 13)], [(10, 11), (10, 11)], [(10, 13), (10, 13)]]
    assert len(engine.named_masks(picture(bright=False), 2)[0].labels) == 2


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
    with pytest.raises(ConfigError, match=r'there is no key "metrics\.segmenter\..*points"'):
        load_evaluation(config, ["metrics.segmenter.points=16"])
    with pytest.raises(ConfigError, match=r"least_iou is 2\.0: it must be between 0 and 1"):
        load_evaluation(config, ["metrics.segmenter.least_iou=2"])
    one = load_evaluation(config, ["metrics.segmenter=weights/oneformer"])
    assert one.metrics.segmenter == "weights/oneformer"
    assert one.hash != load_evaluation(config).hash


# ----------------------------------------------------------------------------------- tiny networks
def write_bpe(folder) -> None:
    """CLIP's tokenizer with letters as its only pieces; the end has the highest number, as CLIP needs."""
    letters = "abcdefghijklmnopqrstuvwxyz-"
    symbols = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({s: i for i, s in enumerate(symbols)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))


_MARKS, _WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] [DEC]",
    "a the dog cat tree on in red sitting with bench grass",
)
BLIP_WORDS = f"{_MARKS} {_WORDS}".split()
CLIP_TEXT = dict(
    vocab_size=56, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
    max_position_embeddings=40, bos_token_id=54, eos_token_id=55, pad_token_id=55, projection_dim=12,
)  # fmt: skip


def tiny_networks():
    import transformers as t

    vision = dict(hidden_size=16, intermediate_size=16, num_attention_heads=2)
    sam = t.SamConfig(
        vision_config=dict(
            hidden_size=16, output_channels=16, num_hidden_layers=1, num_attention_heads=2, image_size=64,
            patch_size=8, window_size=4, global_attn_indexes=[0], num_pos_feats=8, mlp_dim=16,
        ),
        prompt_encoder_config=dict(hidden_size=16, image_size=64, patch_size=8, mask_input_channels=4),
        mask_decoder_config=dict(
            hidden_size=16, mlp_dim=16, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16
        ),
    )  # fmt: skip
    stages = ["stage1", "stage2", "stage3", "stage4"]
    swin = t.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, out_features=stages
    )

    def oneformer(names):
        return t.OneFormerConfig(
            backbone_config=swin, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
            encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=7,
            num_labels=len(names), id2label=dict(enumerate(names)), conv_dim=32, mask_dim=32,
            num_classes=len(names), text_encoder_width=16, text_encoder_num_layers=1,
            text_encoder_context_length=24, text_encoder_vocab_size=60, text_encoder_proj_layers=1,
            text_encoder_n_ctx=2, task_seq_len=24, query_dec_layers=1, is_training=False,
        )  # fmt: skip

    blip = t.BlipConfig(
        text_config=dict(
            vocab_size=len(BLIP_WORDS), hidden_size=16, encoder_hidden_size=16, intermediate_size=16,
            num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=24, projection_dim=12,
            bos_token_id=5, eos_token_id=2, sep_token_id=3, pad_token_id=0,
        ),
        vision_config=vision | dict(num_hidden_layers=1, image_size=32, patch_size=8),
        projection_dim=12,
    )  # fmt: skip
    clip_vision = vision | dict(num_hidden_layers=2, image_size=64, patch_size=32, projection_dim=12)
    clip = t.CLIPConfig(text_config=CLIP_TEXT, vision_config=clip_vision, projection_dim=12)
    clipseg = t.CLIPSegConfig(
        text_config=CLIP_TEXT, vision_config=clip_vision, projection_dim=12, extract_layers=[0, 1],
        reduce_dim=8, decoder_num_attention_heads=2, decoder_intermediate_size=8,
    )  # fmt: skip
    coco = ["person", "sky-other-merged", "tree-merged", "door-stuff"]
    return {
        "sam": t.SamModel(sam),
        "coco": t.OneFormerForUniversalSegmentation(oneformer(coco)),
        "ade20k": t.OneFormerForUniversalSegmentation(oneformer(["wall", "tree", "sky", "earth", "bed "])),
        "blip": t.BlipForConditionalGeneration(blip),
        "clip": t.CLIPModel(clip),
        "clipseg": t.CLIPSegForImageSegmentation(clipseg),
    }


PREPARED = {
    "coco": {"size": {"shortest_edge": 64, "longest_edge": 128}, "size_divisor": 32},
    "blip": {"size": {"height": 32, "width": 32}},
    "clip": {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The six folders, with random weights that are loud enough for answers that differ."""
    at = tmp_path_factory.mktemp("semantic_sam")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, network in tiny_networks().items():
            for key, parameter in network.named_parameters():
                if parameter.ndim > 1:
                    loud = 6.0 if any(part in key for part in ("class_embed", "quer", "embedding")) else 1.5
                    torch.nn.init.normal_(parameter, std=loud * parameter[0].numel() ** -0.5)
                elif name == "sam" and "iou_prediction_head.proj_out.bias" in key:
                    torch.nn.init.constant_(parameter, 0.7)
            network.save_pretrained(at / name)
            prepared = (
                PREPARED["coco" if name == "ade20k" else name] if name not in ("sam", "clipseg") else {}
            )
            (at / name / "preprocessor_config.json").write_text(json.dumps(prepared))
            if name == "blip":
                (at / name / "vocab.txt").write_text("\n".join(BLIP_WORDS) + "\n")
                told = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
                (at / name / "tokenizer_config.json").write_text(json.dumps(told))
            elif name != "sam":
                write_bpe(at / name)
    return at


@pytest.fixture(scope="module")
def scene() -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 9, 60), torch.linspace(0, 12, 90), indexing="ij")
    return torch.stack([x.sin(), y.cos(), (x * y / 9).sin()]) / 2 + 0.5


#: Masks of random weights have the whole picture as their box, so none may suppress another.
LENIENT = dict(
    points_per_side=4, least_iou=0.2, least_stability=0.3, smallest_region=12, stability_offset=0.2,
    box_overlap=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def engine(folder) -> SemanticSam:
    return load_segmenter(options(folder, **LENIENT))


def naive_masks(network, srgb: torch.Tensor, settings) -> list[torch.Tensor]:
    """SAM's masks without batches and shortcuts: every mask at full size, boxes and regions one by one."""
    height, width = srgb.shape[-2:]
    seen = seen_within(height, width, 64)
    small = F.interpolate(srgb[None], size=seen, mode="bilinear", align_corners=False, antialias=True)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    square = torch.zeros(1, 3, 64, 64)
    square[..., : seen[0], : seen[1]] = (small.clamp(0, 1) - mean) / deviation
    found = []
    for row in range(4):
        for column in range(4):
            point = torch.tensor([[[[(column + 0.5) / 4 * seen[1], (row + 0.5) / 4 * seen[0]]]]])
            out = network(pixel_values=square, input_points=point)
            for logits, score in zip(out.pred_masks[0, 0], out.iou_scores[0, 0].tolist(), strict=True):
                wide = F.interpolate(logits[None, None], size=(64, 64), mode="bilinear")
                wide = wide[..., : seen[0], : seen[1]]
                wide = F.interpolate(wide, size=(height, width), mode="bilinear")[0, 0]
                inner = (wide > settings["stability_offset"]).sum().item()
                outer = (wide > -settings["stability_offset"]).sum().item()
                steady = outer and inner / outer > settings["least_stability"]
                if score > settings["least_iou"] and steady and (wide > 0).any():
                    found.append((wide > 0, score))
    masks, scores = zip(*found, strict=True)
    kept = naive_nms(boxes_of(torch.stack(masks)).tolist(), list(scores), settings["box_overlap"])
    tidy, same = [], []
    for i in kept:
        mask, eight = masks[i].numpy().copy(), [[1, 1, 1]] * 3
        for wanted in (False, True):
            labels, count = ndimage.label(mask == wanted, structure=eight)
            areas = [(labels == n).sum() for n in range(1, count + 1)]
            small = [n for n, area in enumerate(areas, 1) if area < settings["smallest_region"]]
            if wanted and len(small) == count:
                small.remove(max(small, key=lambda n: areas[n - 1]))
            for n in small:
                mask[labels == n] = not wanted
        tidy.append(torch.from_numpy(mask))
        same.append(float((tidy[-1] == masks[i]).all()))
    last = naive_nms(boxes_of(torch.stack(tidy)).tolist(), same, settings["box_overlap"])
    return [tidy[i] for i in last]


@pytest.mark.parametrize("overlap", [1.0, 0.7])
def test_masks_of_a_network(engine, scene, overlap):
    reports, network = [], engine.network["sam"]
    settings = LENIENT | {"box_overlap": overlap}
    source = SamMasks(network, engine.mask_source.preparation, MaskOptions(**settings))
    found = source.masks(scene[None], lambda *told: reports.append(told))
    with torch.no_grad():
        known = naive_masks(network, scene, settings)
    assert len(found) == len(known)
    # with 1 no box is taken away; the boxes of random weights are nearly alike, so that 0.7 leaves few
    assert len(found) > 3 if overlap == 1.0 else 1 <= len(found) <= 3
    for mask, other in zip(found, known, strict=True):
        # batches of points change sums in the last bits, so a pixel on the threshold may fall either way
        assert (mask != other).float().mean() < 1e-3
    assert reports == [("masks", 1, 1)]


class Rectangles:
    """Masks of several sizes: those of random weights all have the whole picture as their box."""

    def masks(self, srgb, on_progress=None):
        found = torch.zeros(6, *srgb.shape[-2:], dtype=torch.bool)
        corners = (
            (0, 0, 30, 30),
            (20, 0, 60, 50),
            (40, 60, 55, 90),
            (5, 40, 20, 70),
            (10, 10, 20, 20),
            (0, 70, 12, 90),
        )
        for mask, (top, left, bottom, right) in zip(found, corners, strict=True):
            mask[top:bottom, left:right] = True
        return found


def test_names_of_networks(engine, scene, folder, monkeypatch):
    """Against the library's own whole models, one mask at a time."""
    import transformers as t

    monkeypatch.setattr(engine, "mask_source", Rectangles())
    named = engine.named_masks(scene)
    assert len({one.labels for one in named}) > 2, "the same name everywhere would prove nothing"
    net, height, width = engine.network, *scene.shape[-2:]
    words = t.AutoTokenizer.from_pretrained(folder / "clip")
    maps = {}
    for name in ("ade20k", "coco"):
        scores = load_segmenter(folder / name).class_scores(scene[None])
        scores = F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=False)
        maps[name] = scores[0].argmax(dim=0)
    told = []
    for mask, labels in named:
        box = tuple(boxes_of(mask[None])[0].tolist())
        cut = {scale: scene[(slice(None), *widened(box, scale, height, width))][None] for scale in (1.2, 1.6)}
        candidates = []
        for name in ("ade20k", "coco"):
            number = maps[name][mask].mode().values.item()
            candidates.append(plain_name(net[name].config.id2label[number]))
        blip = Preparation.read(folder / "blip", BLIP_USUAL).shown(cut[1.6])
        out = net["blip"].generate(pixel_values=blip, max_length=20, do_sample=False)
        told.append(" ".join(BLIP_WORDS[i] for i in out[0].tolist() if i > 5))
        candidates = list(dict.fromkeys([*candidates, *caption_nouns(told[-1])]))
        clip = Preparation.read(folder / "clip", CLIP_USUAL).shown(cut[1.2])
        asked = words(candidates, padding=True, truncation=True, max_length=40, return_tensors="pt")
        with torch.no_grad():
            likely = net["clip"](**asked, pixel_values=clip).logits_per_image.softmax(dim=1)
            best = [candidates[i] for i in likely[0].topk(min(3, len(candidates))).indices.tolist()]
            pixels = Preparation().normal(F.interpolate(cut[1.6], size=(512, 512), mode="bilinear"))
            asked = words(best, padding=True, truncation=True, max_length=40, return_tensors="pt")
            out = net["clipseg"](**asked, pixel_values=pixels.expand(len(best), -1, -1, -1)).logits
        wide = F.interpolate(
            out.view(len(best), 1, *out.shape[-2:]), size=cut[1.6].shape[-2:], mode="bilinear"
        )
        votes = wide[:, 0].argmax(dim=0)[mask[widened(box, 1.6, height, width)]].tolist()
        winner = max(range(len(best)), key=votes.count)
        assert labels == (best[winner], *(label for label in best if label != best[winner]))
    assert any(told), "a captioner that says nothing would prove nothing"


def test_labels_of_networks(engine, folder, scene):
    sweep = torch.stack([scene, scene.flip(-1)])
    reports = []
    labels = engine.top_labels(sweep, on_progress=lambda *said: reports.append(said))
    assert labels.shape == (2, 3, 60, 90)
    assert labels.dtype == torch.int64
    assert set(labels.unique().tolist()) <= {UNLABELLED, *engine.classes}
    assert content_consistency(torch.stack([labels[0], labels[0]])).score == 1.0
    assert {what for what, *_ in reports} == {"masks", "names"}
    assert torch.equal(engine.top_labels(sweep[:1])[0], labels[0])
    other = load_segmenter(options(folder, **LENIENT, points_per_batch=5, masks_per_batch=3))
    same = other.top_labels(sweep)
    names, others = engine.classes, other.classes
    told = [[names.get(n, "") for n in labels[0, :, y, x].tolist()] for y, x in ((5, 5), (30, 45), (55, 80))]
    again = [[others.get(n, "") for n in same[0, :, y, x].tolist()] for y, x in ((5, 5), (30, 45), (55, 80))]
    assert told == again, "the size of batches changes no label"


def test_interrupted(engine, scene):
    class Stop(Exception):
        pass

    def stop(what, done, total):
        if what == "names":
            raise Stop

    with pytest.raises(Stop):
        engine.top_labels(scene[None], on_progress=stop)


def test_other_folders(folder, tmp_path):
    with pytest.raises(ValueError, match="is a network of kind clip; segmentation is understood of"):
        load_segmenter(options(folder, coco=str(folder / "clip")))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam"}))
    with pytest.raises(ValueError, match="cannot be read as SamModel"):
        load_segmenter(options(folder, sam=str(tmp_path)))


@pytest.mark.parametrize(("kind", "usual"), [("clip", CLIP_USUAL), ("blip", BLIP_USUAL)])
def test_pictures_are_prepared_as_the_library_does(kind, usual, scene, tmp_path):
    """Beside the library's processors on PIL, which need no torchvision."""
    from importlib import import_module

    module = import_module(f"transformers.models.{kind}.image_processing_pil_{kind}")
    processor = getattr(module, {"clip": "CLIPImageProcessorPil", "blip": "BlipImageProcessorPil"}[kind])()
    bytes_ = (scene * 255).round()
    known = processor(images=bytes_.byte().movedim(0, -1).numpy(), return_tensors="pt")["pixel_values"]
    processor.save_pretrained(tmp_path)
    for prepared in (usual, Preparation.read(tmp_path, usual)):
        found = prepared.shown(bytes_[None] / 255)
        assert found.shape == known.shape
        # PIL resizes in whole numbers, along one axis after the other: at most 2 steps of 8 bits
        assert (found - known).abs().max() <= 2.01 / 255 / min(usual.deviation)
