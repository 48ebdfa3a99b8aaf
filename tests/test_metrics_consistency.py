"""Content consistency: hand counts on small label maps, odd input, and tiny segmentation networks."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
import torch

from lens_models.metrics.consistency import (
    UNLABELLED,
    content_consistency,
    label_codes,
    sets_meet,
    top_labels,
)
from tools import provision
from tools.provision import REPO
from training.evaluate.metrics.load import load_segmenter
from training.evaluate.metrics.preparation import Preparation

# Three pictures of 2 x 3 px with three labels of each pixel, one map per label. Counted by hand, the sets of
# a pixel meet where there is an x:   A, B: . x . / . . x    B, C: . . . / x x x    A, C: x . x / x . .
A = [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [1, 2, 3]], [[0, 1, 2], [3, 4, 5]]]
B = [[[3, 9, 5], [6, 1, 4]], [[2, 8, 1], [2, 7, 5]], [[8, 7, 6], [9, 0, 8]]]
C = [[[5, 3, 3], [1, 0, 9]], [[1, 4, 9], [6, 1, 8]], [[9, 3, 8], [4, 9, 1]]]


def sweep() -> torch.Tensor:
    return torch.tensor([A, B, C])


def test_hand_counts():
    a, b, c = sweep()
    assert sets_meet(a, b).tolist() == [[False, True, False], [False, False, True]]
    assert sets_meet(b, c).tolist() == [[False, False, False], [True, True, True]]
    assert sets_meet(a, c).tolist() == [[True, False, True], [True, False, False]]
    found = content_consistency(sweep())
    assert (found.pairs, found.shares) == (((0, 1), (1, 2)), (2 / 6, 3 / 6))
    assert found.score == pytest.approx(5 / 12, abs=1e-15)  # the rounding of a mean
    every = content_consistency(sweep(), "all")
    assert (every.pairs, every.shares) == (((0, 1), (0, 2), (1, 2)), (2 / 6, 3 / 6, 3 / 6))
    with_last = content_consistency(sweep(), "reference")
    assert (with_last.pairs, with_last.shares) == (((0, 2), (1, 2)), (3 / 6, 3 / 6))
    with_first = content_consistency(sweep(), "reference", 0)
    assert (with_first.pairs, with_first.shares) == (((1, 0), (2, 0)), (2 / 6, 3 / 6))


def test_the_order_of_the_labels_of_a_pixel_does_not_matter():
    turned = sweep().clone()
    turned[1] = turned[1].flip(0)
    assert content_consistency(turned).shares == content_consistency(sweep()).shares


def test_the_same_picture_agrees_and_another_does_not():
    assert content_consistency(torch.tensor([A, A, A])).score == 1.0
    assert content_consistency(torch.stack([torch.tensor(A), torch.tensor(A) + 100])).score == 0.0


def test_one_label_each():
    maps = torch.tensor([[[1, 2], [3, 4]], [[1, 2], [3, 5]]])
    assert content_consistency(maps).score == 3 / 4


def test_pixels_without_a_label():
    none = UNLABELLED
    # agree, differ, labelled in one only, labelled in neither: 1 of the 3 that count
    maps = torch.tensor([[[1, 2, none, none]], [[1, 3, 4, none]]])
    assert content_consistency(maps).score == 1 / 3
    with pytest.raises(ValueError, match="Pictures 1 and 2 have no label anywhere"):
        content_consistency(torch.full((2, 3, 4, 4), none))


def test_three_labels_agree_where_one_does_not():
    """The point of the three: the likeliest two have changed places."""
    scores = torch.tensor([[0.5, 0.4, 0.1, 0.0], [0.4, 0.5, 0.0, 0.1]])[:, :, None, None]
    assert content_consistency(top_labels(scores, 1)).score == 0.0
    assert content_consistency(top_labels(scores)).score == 1.0


def test_top_labels():
    scores = torch.tensor([0.1, 0.7, 0.2, 0.4])[None, :, None, None]
    assert top_labels(scores)[0, :, 0, 0].tolist() == [1, 3, 2]
    assert top_labels(scores[:, :2])[0, :, 0, 0].tolist() == [1, 0, UNLABELLED]
    with pytest.raises(ValueError, match="At least 1 label"):
        top_labels(scores, 0)


def test_codes_of_pictures():
    red, green, black = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)
    image = torch.tensor([[[red, green, black, red]]])
    codes = label_codes(image)
    assert codes.shape == (1, 1, 4)
    assert len(set(codes.flatten().tolist())) == 3
    assert codes[0, 0, 0] == codes[0, 0, 3]
    # every value of an 8-bit file is a label of its own, the same in grey, in a mask and in another image
    steps = torch.arange(256.0).reshape(1, 1, 256) / 255.0
    assert len(set(label_codes(steps).flatten().tolist())) == 256
    assert torch.equal(label_codes(steps), label_codes(steps[..., None].expand(-1, -1, -1, 3)))
    half_transparent = torch.cat([image, torch.full((1, 1, 4, 1), 0.5)], dim=-1)
    assert torch.equal(label_codes(half_transparent), codes)
    with pytest.raises(ValueError, match="1, 3 or 4 channels"):
        label_codes(torch.zeros(1, 2, 2, 2))


@pytest.mark.parametrize(
    ("labels", "settings", "said"),
    [
        (torch.zeros(1, 4, 4, dtype=torch.long), {}, "at least 2 of them; there is 1"),
        (torch.zeros(2, 4, 4), {}, "Labels are whole numbers, not torch.float32"),
        (torch.zeros(4, 4, dtype=torch.long), {}, "Labels are"),
        (torch.zeros(2, 0, 4, dtype=torch.long), {}, "Labels are"),
        (torch.zeros(2, 4, 4, dtype=torch.long), {"pairing": "some"}, 'Unknown pairing "some"'),
        (
            torch.zeros(2, 4, 4, dtype=torch.long),
            {"pairing": "reference", "reference": 2},
            "no picture 2 to compare with among 2",
        ),
    ],
)
def test_bad_input_is_a_sentence(labels, settings, said):
    with pytest.raises(ValueError, match=said):
        content_consistency(labels, **settings)


# -------------------------------------------------------------------------------- segmentation networks
def test_the_size_a_network_sees(tmp_path):
    standard = Preparation.read(tmp_path)
    assert standard.seen_size(600, 800) == (800, 1088)  # 800 x 1066.7, up to a multiple of 32
    assert standard.seen_size(100, 1000) == (160, 1344)  # held by the longest side, 1333
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 100, "width": 64}, "size_divisor": 0, "image_mean": [0.5, 0.5, 0.5]})
    )
    fixed = Preparation.read(tmp_path)
    assert fixed.seen_size(600, 800) == (100, 64)
    assert fixed.mean == (0.5, 0.5, 0.5)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no .*config\.json"):
        load_segmenter(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="is a network of kind bert"):
        load_segmenter(tmp_path)


# The transformers library is in ComfyUI's environment and not in this one. Writes a folder per kind with a
# tiny random network, loads it as the pack does, and compares with the library's own processing.
SCRIPT = """
import json, pathlib, sys
repo, folder = sys.argv[1], pathlib.Path(sys.argv[2])
sys.path.insert(0, repo)
import torch, transformers
from transformers import (
    DetrConfig, Mask2FormerConfig, Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor,
    MaskFormerConfig, MaskFormerForInstanceSegmentation, MaskFormerImageProcessor, OneFormerConfig,
    OneFormerForUniversalSegmentation, SwinConfig,
)
from lens_models.metrics.consistency import content_consistency
from training.evaluate.metrics.segmenter import load_segmenter

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
stages = ["stage1", "stage2", "stage3", "stage4"]
swin = SwinConfig(
    embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, out_features=stages
)
former = dict(
    backbone_config=swin, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16, encoder_layers=1,
    decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=7, num_labels=5,
)

def maskformer():
    detr = DetrConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=7,
    )
    config = MaskFormerConfig(
        backbone_config=swin, decoder_config=detr, fpn_feature_size=32, mask_feature_size=32, num_labels=5
    )
    return MaskFormerForInstanceSegmentation(config), MaskFormerImageProcessor

def mask2former():
    config = Mask2FormerConfig(**former, feature_size=32)
    return Mask2FormerForUniversalSegmentation(config), Mask2FormerImageProcessor

def oneformer():
    config = OneFormerConfig(
        **former, conv_dim=32, mask_dim=32, num_classes=5, text_encoder_width=16, text_encoder_num_layers=1,
        text_encoder_context_length=12, text_encoder_vocab_size=60, text_encoder_proj_layers=1,
        text_encoder_n_ctx=2, task_seq_len=12, query_dec_layers=1, is_training=False,
    )
    return OneFormerForUniversalSegmentation(config), MaskFormerImageProcessor

def write_tokenizer(at):
    words = ["the</w>", "task</w>", "is</w>", "semantic</w>"]
    letters = sorted(set("theaskismntic"))
    symbols = letters + [letter + "</w>" for letter in letters]
    merges = []
    for word in words:
        parts = list(word[:-4])
        parts[-1] += "</w>"
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
            symbols.append(parts[0])
    symbols = ["!", *dict.fromkeys(symbols), "<|startoftext|>", "<|endoftext|>"]
    (at / "vocab.json").write_text(json.dumps({s: i for i, s in enumerate(symbols)}))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in dict.fromkeys(merges))]
    (at / "merges.txt").write_text("\\n".join(lines) + "\\n")
    (at / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return [symbols.index(w) for w in ["<|startoftext|>", *words, "<|endoftext|>"]]

answer = {}
for build in (maskformer, mask2former, oneformer):
    torch.manual_seed(0)
    network, kind = build()
    for name, parameter in network.named_parameters():  # as initialised, the answer is the same everywhere
        if parameter.ndim > 1:
            loud = any(part in name for part in ("class_predictor", "class_embed", "quer"))
            std = (6.0 if loud else 1.5) * parameter[0].numel() ** -0.5
            torch.nn.init.normal_(parameter, std=std)
    # masks that are all 0 or 1 would tie everywhere: three layers share what brings their logits to about 3
    start = torch.rand(1, 3, 64, 128)
    asked = {"task_inputs": torch.ones(1, 12, dtype=torch.long)} if build is oneformer else {}
    with torch.no_grad():
        spread = network.eval()(pixel_values=start, **asked).masks_queries_logits.std().item()
        for name, parameter in network.named_parameters():
            if "mask_embed" in name:
                parameter.mul_((3.0 / spread) ** (1 / 3))
    processor = kind(size={"shortest_edge": 64, "longest_edge": 128}, size_divisor=32, ignore_index=255)
    at = folder / build.__name__
    network.save_pretrained(at)
    processor.save_pretrained(at)
    expected_task = write_tokenizer(at) if build is oneformer else None
    ours, theirs = load_segmenter(at), network.eval()
    y, x = torch.meshgrid(torch.linspace(0, 9, 70), torch.linspace(0, 12, 110), indexing="ij")
    picture = torch.stack([x.sin(), y.cos(), (x * y).sin()])[None] / 2 + 0.5
    picture = (picture * 255).round() / 255
    inputs = processor(images=(picture[0] * 255).round().to(torch.uint8), return_tensors="pt")
    pixels = inputs["pixel_values"]
    shown = ours.preparation.shown(picture)
    more = {}
    if expected_task:
        more = {"task_inputs": torch.tensor([expected_task + [0] * (12 - len(expected_task))])}
    with torch.no_grad():
        outputs = theirs(pixel_values=shown, **more)
    size = tuple(picture.shape[-2:])
    known = MaskFormerImageProcessor().post_process_semantic_segmentation(
        outputs, [size], return_segmentation_scores=True
    )[0]
    top = known["segmentation_scores"].argsort(dim=0, descending=True)[:3]
    labels = ours.top_labels(picture)
    other = ours.top_labels(torch.cat([picture, picture.flip(-1)]))
    answer[build.__name__] = {
        "shape": list(labels.shape), "kind": str(labels.dtype), "used": labels.unique().tolist(),
        "pixels": (shown - pixels).abs().max().item() if shown.shape == pixels.shape else str(pixels.shape),
        "same": (labels[0] == top).float().mean().item(), "classes": len(ours.classes),
        "distinct": bool((labels.sort(1).values.diff(dim=1) > 0).all()),
        "task": None if ours.task is None else ours.task.tolist() == more["task_inputs"].tolist(),
        "alone": torch.equal(other[:1], labels), "varied": len(top.flatten(1).unique(dim=1)[0]),
        "consistency": content_consistency(other).score,
        "itself": content_consistency(torch.cat([labels, labels])).score,
    }
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict:
    host = provision.host()
    env = {**os.environ, "PYTHONPATH": str(host.shim or ""), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [str(host.python), "-c", SCRIPT, str(REPO), str(tmp_path_factory.mktemp("segmenters"))]
    ran = subprocess.run(command, cwd=host.checkout, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.host
@pytest.mark.parametrize("kind", ["maskformer", "mask2former", "oneformer"])
def test_networks_of_transformers(answers, kind):
    said = answers[kind]
    assert said["shape"] == [1, 3, 70, 110]
    assert said["kind"] == "torch.int64"
    assert said["distinct"]
    assert said["alone"]
    assert said["varied"] > 1, "an answer that is the same everywhere would prove nothing"
    assert said["classes"] == 5
    assert said["itself"] == 1.0
    assert 0.0 < said["consistency"] <= 1.0
    # the library resizes in whole numbers: at most one step of 8 bits, over the smallest deviation, 0.224
    assert said["pixels"] <= 1.01 / 255 / 0.224
    # the three likeliest classes of each pixel, in order, by the library's own scores
    assert said["same"] == 1.0
    if kind == "oneformer":
        assert said["task"] is True
