"""The sixth stage: is it a photo? A network of pictures and words answers with a probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa
import torch

from ..config.load import ConfigError
from .flow import Done, Engine, Progress, dropped, kept
from .gpu_worker import PictureWorker, judge_with_model, pixel_values, pretrained
from .options import Curation, Photo

#: ImageNet's, which InternVL was trained with.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_START, _END = "<img>", "</img>"
_YES, _NO = ("Yes", "yes", " Yes", " yes", "YES"), ("No", "no", " No", " no", "NO")


class PhotoCheck(Protocol):
    """Says how probable it is that pictures are photos."""

    side: int

    def p_yes(self, pictures: Sequence[Any]) -> list[float]:
        """For each Pillow picture, 0..1."""
        ...


def check_photos(config: Curation, before: Done, engine: Engine, progress: Progress | None = None) -> Done:
    """Ask about all photos."""
    return judge_with_model(config, "photo", PhotoCheckWorker, "an InternVL", before, engine, progress)


class InternVL:
    """InternVL through transformers: the odds of its next word being yes or no, from one look at the picture.

    The picture is one tile: how a picture was made shows in the whole.
    """

    def __init__(self, options: Photo, device: str = "cpu"):
        from transformers import AutoTokenizer, InternVLForConditionalGeneration

        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self.device = device
        self.tokenizer = pretrained(AutoTokenizer, options.model, options.revision, "photo")
        network = pretrained(
            InternVLForConditionalGeneration, options.model, options.revision, "photo", dtype=dtype
        )
        self.network = network.to(device).eval()
        sizes = network.config
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
        pixels = pixel_values(pictures, self.side, _MEAN, _STD).to(self.device, self.network.dtype)
        ids = self.prompt.expand(len(pictures), -1).to(self.device)
        logits = self.network(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, logits_to_keep=1
        ).logits[:, -1]
        yes, no = (logits[:, sorted(words)].float().logsumexp(-1) for words in (self.yes, self.no))
        return (yes - no).sigmoid().tolist()


class PhotoCheckWorker(PictureWorker):
    """Asks about a unit's photos. p_yes: the probability, stored for all."""

    columns = (("p_yes", pa.float64()),)

    def __init__(self, config: Curation, check: PhotoCheck | None = None):
        super().__init__(config)
        self.check = check or InternVL(config.photo, self.device)
        self.draft_px = self.check.side

    def verdicts(self, rows: list[dict[str, Any]], pictures: list[Any]) -> list[dict[str, Any]]:
        least = self.config.photo.least_p_yes
        return [
            kept(row["reason"], p_yes=p) if p >= least else dropped("not a photo, says the check", p_yes=p)
            for row, p in zip(rows, self.check.p_yes(pictures), strict=True)
        ]
