"""Semantic Segment Anything end to end with tiny networks, beside the library's models and naive loops."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from lens_models.metrics.consistency import UNLABELLED, content_consistency
from tests.training.test_sam_masks import naive_nms
from tests.training.test_semantic_sam import options
from training.evaluate.metrics.naming import BLIP_USUAL, CLIP_USUAL, caption_nouns
from training.evaluate.metrics.preparation import Preparation
from training.evaluate.metrics.sam_masks import (
    MaskOptions,
    SamMasks,
    boxes_of,
    seen_within,
)
from training.evaluate.metrics.semantic_sam import (
    SemanticSam,
    load_segmenter,
    plain_name,
    widened,
)


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
    assert len({labels for _, labels in named}) > 2, "the same name everywhere would prove nothing"
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
