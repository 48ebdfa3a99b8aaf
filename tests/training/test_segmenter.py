"""The segmenters of the transformers library: what they are given, and tiny networks beside the library."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tools import provision
from tools.provision import REPO
from training.evaluate.metrics.preparation import Preparation
from training.evaluate.metrics.semantic_sam import load_segmenter


def test_the_size_a_network_sees(tmp_path):
    standard = Preparation.read(tmp_path)
    assert standard.input_size(600, 800) == (800, 1088)  # 800 x 1066.7, up to a multiple of 32
    assert standard.input_size(100, 1000) == (160, 1344)  # held by the longest side, 1333
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 100, "width": 64}, "size_divisor": 0, "image_mean": [0.5, 0.5, 0.5]})
    )
    fixed = Preparation.read(tmp_path)
    assert fixed.input_size(600, 800) == (100, 64)
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
from training.evaluate.metrics.semantic_sam import load_segmenter

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
