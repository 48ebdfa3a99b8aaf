"""Names for cut-outs of a picture, as Semantic Segment Anything finds them: captions, ranking and a vote.

BLIP writes a caption, whose nouns are candidates; CLIP ranks all candidates; CLIPSeg tells where in the
cut-out each of the best is. Networks and tokenizers of the transformers library.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .preparation import Preparation

#: What the processors of CLIP, BLIP and CLIPSeg do, where preprocessor_config.json does not say.
_COLOURS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
CLIP_USUAL = Preparation(224, 1 << 30, 0, 0, 1, *_COLOURS, resampled="bicubic", middle=(224, 224))
BLIP_USUAL = Preparation(0, 0, 384, 384, 1, *_COLOURS, resampled="bicubic")
#: Square at which CLIPSeg sees a cut-out, px, as the engine has it.
_CLIPSEG_SIDE = 512

Nouns = Callable[[str], list[str]]
_BREAK_WORDS = """
about above across after against along among and are around as at be been before behind being below beneath
beside between beyond but by can down during each for from had has have he her him his i in inside into is it
its like may near next not of off on onto or out outside over past she so than that their them then there
these they this those through to together toward towards under until up upon very was we were what when where
which while who whose will with within without you your
"""
#: Words that end a noun phrase, besides punctuation marks.
_BREAKS = frozenset(_BREAK_WORDS.split())
_DETERMINERS = frozenset({"a", "an", "the", "some", "several", "many", "two", "three", "four", "five"})
_ING_WORDS = """
awning building ceiling clothing earring evening icing king lightning morning painting pudding railing ring
siding sibling spring string swing thing wedding wing
"""
#: Nouns that end as participles do.
_NOUNS_IN_ING = frozenset(_ING_WORDS.split())
_SHORTEST_PARTICIPLE = 5


def caption_nouns(caption: str) -> list[str]:
    """Noun phrases of a caption by a plain rule, each once, in order, with their articles.

    A phrase is a run of words without prepositions, pronouns, conjunctions and auxiliary verbs. It ends
    before a participle in -ing ("a dog sitting on a bench") and before one in -ed that a preposition follows
    ("a table topped with food"), and starts anew at an article. The rule knows no other verbs and was made
    for captions such as BLIP's, in lower case and in one clause; it is no parser (see `spacy_nouns`).
    """
    words = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*|[.,;:!?]", caption.lower())
    phrases: list[list[str]] = [[]]
    for word, after in zip(words, [*words, ""][1:], strict=True):
        participle = word.endswith("ing") and word not in _NOUNS_IN_ING
        participle |= word.endswith("ed") and len(word) >= _SHORTEST_PARTICIPLE and after in _BREAKS
        if word in _BREAKS or not word[0].isalnum() or participle:
            phrases.append([])
        elif word in _DETERMINERS:
            phrases.append([word])
        else:
            phrases[-1].append(word)
    return list(dict.fromkeys(" ".join(phrase) for phrase in phrases if set(phrase) - _DETERMINERS))


def spacy_nouns(model: str = "en_core_web_sm") -> Nouns:
    """The noun chunks of spaCy, as published. Raises ValueError where it or its language model is missing."""
    try:
        import spacy

        parser = spacy.load(model)
    except (ImportError, OSError) as error:
        raise ValueError(
            f"Nouns by spaCy need the library and its model {model}, and one is missing: install both or use "
            f'nouns "rule" ({error}).'
        ) from error
    return lambda caption: list(dict.fromkeys(chunk.text for chunk in parser(caption).noun_chunks))


class Captions:
    """BLIP's captions."""

    def __init__(self, network: Any, tokenizer: Any, preparation: Preparation, longest: int) -> None:
        """longest: tokens of a caption."""
        self.network, self.tokenizer = network.eval(), tokenizer
        self.preparation, self.longest = preparation, longest

    def __call__(self, cuts: Sequence[Tensor]) -> list[str]:
        """A caption of each cut-out `(1, 3, h, w)`, sRGB 0..1; the likeliest word at a time."""
        pixels = torch.cat([self.preparation.shown(cut) for cut in cuts])
        told = self.network.generate(pixel_values=pixels, max_length=self.longest, do_sample=False)
        return [text.strip() for text in self.tokenizer.batch_decode(told[:, 1:], skip_special_tokens=True)]


class Ranker:
    """CLIP's order of candidates."""

    def __init__(self, network: Any, tokenizer: Any, preparation: Preparation) -> None:
        self.network, self.preparation = network.eval(), preparation
        self.texts = TextFeatures(network, tokenizer)

    def __call__(
        self, cuts: Sequence[Tensor], candidates: Sequence[Sequence[str]], count: int
    ) -> list[list[str]]:
        """The `count` candidates that fit each cut-out `(1, 3, h, w)` best, best first."""
        pixels = torch.cat([self.preparation.shown(cut) for cut in cuts])
        seen = F.normalize(_features(self.network.get_image_features(pixel_values=pixels)), dim=-1)
        ranked = []
        for picture, names in zip(seen, candidates, strict=True):
            likeness = F.normalize(self.texts(names), dim=-1) @ picture
            best = likeness.argsort(descending=True, stable=True)[:count]
            ranked.append([names[i] for i in best.tolist()])
        return ranked


class Finder:
    """CLIPSeg's maps of where names are."""

    def __init__(self, network: Any, tokenizer: Any, preparation: Preparation) -> None:
        """preparation: only its colours are used."""
        self.network, self.preparation = network.eval(), preparation
        self.texts = TextFeatures(network.clip, tokenizer)

    def __call__(self, cuts: Sequence[Tensor], names: Sequence[Sequence[str]]) -> list[Tensor]:
        """Logits of the names of each cut-out `(1, 3, h, w)`: `(names, h, w)` each.

        As in the engine a cut-out is seen as a square of 512 px, resized without a filter.
        """
        square = (_CLIPSEG_SIDE, _CLIPSEG_SIDE)
        counts = [len(asked) for asked in names]
        pixels = torch.cat(
            [F.interpolate(c, size=square, mode="bilinear", align_corners=False) for c in cuts]
        )
        pixels = self.preparation.normal(pixels).repeat_interleave(pixels.new_tensor(counts).long(), dim=0)
        texts = torch.cat([self.texts(asked) for asked in names])
        logits = self.network(pixel_values=pixels, conditional_embeddings=texts).logits.float()
        logits = logits.reshape(len(texts), 1, *logits.shape[-2:])
        return [
            F.interpolate(own, size=cut.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
            for cut, own in zip(cuts, logits.split(counts), strict=True)
        ]


class TextFeatures:
    """CLIP's embeddings of names, each made once."""

    def __init__(self, network: Any, tokenizer: Any) -> None:
        self.network, self.tokenizer = network, tokenizer
        self._made: dict[str, Tensor] = {}

    def __call__(self, names: Sequence[str]) -> Tensor:
        """`(names, width)`, not normalised."""
        device = next(self.network.parameters()).device
        new = [name for name in dict.fromkeys(names) if name not in self._made]
        if new:
            longest = self.network.config.text_config.max_position_embeddings
            read = self.tokenizer(new, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            read = {key: read[key].to(device) for key in ("input_ids", "attention_mask")}
            features = _features(self.network.get_text_features(**read))
            self._made.update(zip(new, features, strict=True))
        return torch.stack([self._made[name].to(device) for name in names])


def _features(told: Any) -> Tensor:
    """Embeddings, which the library gives as they are or, in newer versions, inside of more."""
    return told if isinstance(told, Tensor) else told.pooler_output
