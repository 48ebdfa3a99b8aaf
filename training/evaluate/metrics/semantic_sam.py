"""Semantic Segment Anything (Chen et al. 2023): the label sets of the paper's consistency.

Its engine, made anew on the transformers library. SAM finds masks. For each mask the commonest class in it of
two OneFormers, trained on COCO and on ADE20K, and the nouns of BLIP's caption of a cut-out around it are
candidates; CLIP keeps the three that fit a closer cut-out best; CLIPSeg votes among these, pixel by pixel.
CLIP's three are the mask's labels, the winner of the vote comes first.

The published engine names masks, not pixels. Here a pixel has the labels of the smallest mask that it is in,
and none outside of all masks. Its colours are red, green, blue: the published engine reads its files in the
opposite order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lens_models.metrics.consistency import LABELS_KEPT, UNLABELLED

from .naming import BLIP_USUAL, CLIP_USUAL, Captions, Finder, Nouns, Ranker, caption_nouns, spacy_nouns
from .preparation import Preparation, from_folder
from .sam_masks import MaskOptions, Progress, SamMasks, boxes_of
from .segmenter import TransformersSegmenter, load_transformers_segmenter

NOUNS = ("rule", "spacy")
#: How much wider than the mask's box the cut-outs are that CLIP, BLIP and CLIPSeg see.
RANKED_SCALE, CAPTIONED_SCALE, VOTED_SCALE = 1.2, 1.6, 1.6
_ENDINGS = ("-merged", "-other", "-stuff")
_OTHER_NAMES = {"wall-wood": "wall"}


@dataclass(frozen=True, kw_only=True)
class SemanticSamOptions(MaskOptions):
    """Folders of the six networks, and what the engine leaves to choose.

    sam, coco, ade20k, blip, clip, clipseg: folders of the transformers library, with weights and tokenizers.
    nouns: "rule" for `caption_nouns`, "spacy" for the published `spacy_nouns`. masks_per_batch: masks named
    at a time. caption_tokens: longest caption, with its first and last token.
    """

    sam: str
    coco: str
    ade20k: str
    blip: str
    clip: str
    clipseg: str
    nouns: str = NOUNS[0]
    masks_per_batch: int = 8
    caption_tokens: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nouns not in NOUNS:
            raise ValueError(f'nouns is "{self.nouns}": use one of {", ".join(NOUNS)}.')
        if self.masks_per_batch < 1 or self.caption_tokens < 2:
            raise ValueError(
                f"masks_per_batch is {self.masks_per_batch} and caption_tokens {self.caption_tokens}: they "
                "must be at least 1 and 2."
            )


#: A mask `(H, W)` bool, and its labels: the vote's winner, then the others in CLIP's order.
NamedMask = tuple[Tensor, tuple[str, ...]]


class SemanticSam:
    """The engine. Labels are numbered from 0 in the order in which any picture first has them."""

    def __init__(
        self,
        masks: SamMasks,
        closed: Sequence[TransformersSegmenter],
        captions: Captions,
        ranker: Ranker,
        finder: Finder,
        *,
        nouns: Nouns = caption_nouns,
        masks_per_batch: int = 8,
        network: nn.Module | None = None,
    ) -> None:
        """closed: segmenters with a fixed list of classes. network: all networks, for their device."""
        self.mask_source, self.closed, self.captions = masks, tuple(closed), captions
        self.ranker, self.finder, self.nouns = ranker, finder, nouns
        self.masks_per_batch, self.network = masks_per_batch, network
        self._numbers: dict[str, int] = {}

    @property
    def classes(self) -> dict[int, str]:
        """Names of the labels met so far."""
        return {number: label for label, number in self._numbers.items()}

    def top_labels(
        self, srgb: Tensor, count: int = LABELS_KEPT, on_progress: Progress | None = None
    ) -> Tensor:
        """Likeliest labels of each pixel, `(B, count, H, W)` int64, `UNLABELLED` where there are fewer.

        srgb: `(B, 3, H, W)`, 0..1. Labels are numbers of `classes`, equal across pictures and calls.
        on_progress: called with (what, done, total), what being "masks" for batches of points and "names" for
        masks of one picture; may raise to interrupt.
        """
        if count < 1:
            raise ValueError(f"At least 1 label is kept of each pixel, not {count}.")
        found = []
        for picture in srgb:
            numbered = []
            for mask, labels in self.named_masks(picture, count, on_progress):
                numbers = [self._numbers.setdefault(label, len(self._numbers)) for label in labels]
                numbered.append((mask.to(srgb.device), numbers))
            found.append(painted(numbered, (picture.shape[-2], picture.shape[-1]), count, srgb.device))
        return torch.stack(found)

    def named_masks(
        self, srgb: Tensor, count: int = LABELS_KEPT, on_progress: Progress | None = None
    ) -> list[NamedMask]:
        """The masks of one picture `(3, H, W)`, sRGB 0..1, with at most `count` labels each."""
        parameter = None if self.network is None else next(self.network.parameters(), None)
        picture = srgb[None].to(srgb.device if parameter is None else parameter.device).float()
        with torch.inference_mode():
            masks = self.mask_source.masks(picture, on_progress)
            named: list[NamedMask] = []
            if len(masks):
                maps = [(one.classes, one.top_labels(picture, 1)[0, 0]) for one in self.closed]
            for batch in masks.split(self.masks_per_batch) if len(masks) else ():
                named += self._named(picture, batch, maps, count)
                if on_progress is not None:
                    on_progress("names", len(named), len(masks))
        return named

    def _named(
        self, picture: Tensor, masks: Tensor, maps: list[tuple[dict[int, str], Tensor]], count: int
    ) -> list[NamedMask]:
        size = tuple(picture.shape[-2:])
        boxes = [tuple(box) for box in boxes_of(masks).tolist()]

        def around(scale: float) -> list[tuple[slice, slice]]:
            return [widened(box, scale, *size) for box in boxes]

        captions = self.captions([picture[..., r, c] for r, c in around(CAPTIONED_SCALE)])
        candidates = []
        for mask, caption in zip(masks, captions, strict=True):
            known = [plain_name(classes[commonest(classes_map[mask])]) for classes, classes_map in maps]
            candidates.append(list(dict.fromkeys([*known, *self.nouns(caption)])))
        ranked = self.ranker([picture[..., r, c] for r, c in around(RANKED_SCALE)], candidates, count)
        cuts = around(VOTED_SCALE)
        found = self.finder([picture[..., r, c] for r, c in cuts], ranked)
        named = []
        for mask, (rows, columns), labels, scores in zip(masks, cuts, ranked, found, strict=True):
            winner = commonest(scores.argmax(dim=0)[mask[rows, columns]])
            others = labels[:winner] + labels[winner + 1 :]
            named.append((mask, (labels[winner], *others)))
        return named


def widened(box: tuple[int, int, int, int], scale: float, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a box made `scale` times as wide and high about its middle, within the picture.

    box: (left, top, right, bottom), px, right and bottom outside. Edges are rounded towards 0 with the last
    pixel as the right and lower edge, as the published engine cuts.
    """
    found = []
    for first, end, limit in ((box[1], box[3], height), (box[0], box[2], width)):
        more = (scale - 1.0) * (end - first) / 2
        low, last = (min(max(int(edge), 0), limit - 1) for edge in (first - more, end - 1 + more))
        found.append(slice(low, last + 1))
    return found[0], found[1]


def commonest(numbers: Tensor) -> int:
    """The whole number that is there most often, the lowest of equals."""
    return int(torch.bincount(numbers.flatten()).argmax())


def plain_name(name: str) -> str:
    """A class's name without what a data set adds to it: "sky-other-merged" is sky."""
    name = name.strip().lower()
    name = _OTHER_NAMES.get(name, name)
    while ending := next((e for e in _ENDINGS if name.endswith(e)), ""):
        name = name.removesuffix(ending)
    return name


def painted(
    named: Sequence[tuple[Tensor, Sequence[int]]], size: tuple[int, int], count: int, device: Any = "cpu"
) -> Tensor:
    """Labels of the smallest mask over each pixel, `(count, H, W)` int64, `UNLABELLED` where there is none.

    named: masks `(H, W)` bool with at most `count` labels each. Of equally large masks the later is on top.
    """
    found = torch.full((count, *size), UNLABELLED, dtype=torch.long, device=device)
    for mask, labels in sorted(named, key=lambda one: -int(one[0].sum())):
        filled = [*labels, *[UNLABELLED] * (count - len(labels))]
        found[:, mask] = torch.tensor(filled, device=device)[:, None]
    return found


def load_semantic_sam(options: SemanticSamOptions) -> SemanticSam:
    """The engine with its networks from local folders, on the CPU; move `network` elsewhere.

    Raises FileNotFoundError for a folder without config.json, ValueError for one that cannot be read, a
    closed segmenter of another kind, and where transformers or spaCy is missing.
    """
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            "Semantic Segment Anything needs the transformers library: pip install transformers."
        ) from error
    for name in ("sam", "coco", "ade20k", "blip", "clip", "clipseg"):
        config = Path(getattr(options, name)) / "config.json"
        if not config.is_file():
            raise FileNotFoundError(
                f"There is no {config}: give as {name} the folder of its network, with config.json and "
                "weights."
            )
    closed = {name: load_transformers_segmenter(getattr(options, name)) for name in ("coco", "ade20k")}
    kinds = {
        "sam": transformers.SamModel,
        "blip": transformers.BlipForConditionalGeneration,
        "clip": transformers.CLIPModel,
        "clipseg": transformers.CLIPSegForImageSegmentation,
    }
    networks = {n: from_folder(k, getattr(options, n)).requires_grad_(False) for n, k in kinds.items()}
    tokenizer, named = transformers.AutoTokenizer, ("blip", "clip", "clipseg")
    words = {name: from_folder(tokenizer, getattr(options, name)) for name in named}

    def preparation(name: str, usual: Preparation | None = None) -> Preparation:
        return Preparation.read(Path(getattr(options, name)), usual)

    return SemanticSam(
        SamMasks(networks["sam"], preparation("sam"), options),
        [closed["ade20k"], closed["coco"]],
        Captions(networks["blip"], words["blip"], preparation("blip", BLIP_USUAL), options.caption_tokens),
        Ranker(networks["clip"], words["clip"], preparation("clip", CLIP_USUAL)),
        Finder(networks["clipseg"], words["clipseg"], preparation("clipseg")),
        nouns=spacy_nouns() if options.nouns == "spacy" else caption_nouns,
        masks_per_batch=options.masks_per_batch,
        network=nn.ModuleDict(networks | {name: one.network for name, one in closed.items()}).eval(),
    )


def load_segmenter(source: str | Path | SemanticSamOptions) -> TransformersSegmenter | SemanticSam:
    """One network, from a folder of the transformers library, or Semantic Segment Anything, from its options.

    Nothing is downloaded. Raises FileNotFoundError and ValueError as the two loaders do.
    """
    if isinstance(source, (str, Path)):
        return load_transformers_segmenter(source)
    return load_semantic_sam(source)
