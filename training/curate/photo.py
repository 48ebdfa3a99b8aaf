"""The sixth stage: is it a photo? A network of pictures and words answers with a probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch

from ..config.load import ConfigError
from .flow import dropped, kept
from .gpu_worker import ModelWorker, PictureModel
from .options import Photo
from .pixels import IMAGENET

_START, _END = "<img>", "</img>"
_YES, _NO = ("Yes", "yes", " Yes", " yes", "YES"), ("No", "no", " No", " no", "NO")


class InternVL(PictureModel):
    """InternVL: the odds of its next word being yes or no, from one look at the picture.

    The picture is one tile: how a picture was made shows in the whole.
    """

    def __init__(self, options: Photo, device: str = "cpu"):
        super().__init__("InternVLForConditionalGeneration", options, device, torch.bfloat16, IMAGENET)
        sizes = self.network.config
        self.side = sizes.vision_config.image_size[0]
        self.yes, self.no = (self._first_tokens(words) for words in (_YES, _NO))
        if not self.yes or not self.no or self.yes & self.no:
            raise ConfigError(
                f"The words of {options.model} do not tell yes from no: it is no InternVL model."
            )
        picture = self.tokenizer.convert_ids_to_tokens(sizes.image_token_id) * sizes.image_seq_length
        question = f"{_START}{picture}{_END}\n{options.question}"
        prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        self.prompt = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids

    def _first_tokens(self, words: Sequence[str]) -> set[int]:
        unknown = self.tokenizer.unk_token_id
        encoded = [self.tokenizer(word, add_special_tokens=False).input_ids for word in words]
        return {ids[0] for ids in encoded if len(ids) == 1 and ids[0] != unknown}

    @torch.inference_mode()
    def p_yes(self, pictures: Sequence[Any]) -> list[float]:
        """For each Pillow picture, 0..1."""
        logits = self.network(**self.inputs(pictures), logits_to_keep=1).logits[:, -1]
        yes, no = (logits[:, sorted(words)].float().logsumexp(-1) for words in (self.yes, self.no))
        return (yes - no).sigmoid().tolist()


class PhotoCheckWorker(ModelWorker):
    """Asks about a unit's photos. p_yes: the probability, stored for all."""

    columns = (("p_yes", pa.float64()),)
    kind, Model = "an InternVL", InternVL

    def verdicts(self, rows: list[dict[str, Any]], pictures: list[Any]) -> list[dict[str, Any]]:
        least = self.config.photo.least_p_yes
        return [
            kept(row["reason"], p_yes=p) if p >= least else dropped("not a photo, says the check", p_yes=p)
            for row, p in zip(rows, self.model.p_yes(pictures), strict=True)
        ]


run = PhotoCheckWorker.run
