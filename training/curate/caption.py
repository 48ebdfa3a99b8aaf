"""The seventh stage: words for photos that have none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa
import torch

from ..config.load import ConfigError
from .flow import Done, Engine, Progress, dropped, kept, picture_path
from .gpu_worker import PictureWorker, judge_with_model, pixel_values, pretrained
from .options import Caption, Curation

#: CLIP's, which BLIP-2 was trained with.
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Captioner(Protocol):
    """Describes pictures."""

    side: int

    def captions(self, pictures: Sequence[Any]) -> list[str]:
        """A sentence for each Pillow picture."""
        ...


def write_captions(config: Curation, before: Done, engine: Engine, progress: Progress | None = None) -> Done:
    """Describe all photos."""
    return judge_with_model(config, "caption", CaptionWorker, "a BLIP-2", before, engine, progress)


class Blip2:
    """BLIP-2 through transformers, the most probable word at a time: the same caption in every run."""

    def __init__(self, options: Caption, device: str = "cpu"):
        from transformers import AutoTokenizer, Blip2ForConditionalGeneration

        dtype = torch.float16 if device == "cuda" else torch.float32
        self.device, self.options = device, options
        self.tokenizer = pretrained(AutoTokenizer, options.model, options.revision, "caption")
        network = pretrained(
            Blip2ForConditionalGeneration, options.model, options.revision, "caption", dtype=dtype
        )
        self.network = network.to(device).eval()
        sizes = network.config
        self.side = sizes.vision_config.image_size
        if sizes.image_token_index is None:
            raise ConfigError(
                f"{options.model} does not say which token stands for the picture: use a newer copy of it."
            )
        words = self.tokenizer(options.prompt, add_special_tokens=False).input_ids if options.prompt else []
        start = sizes.text_config.bos_token_id
        begun = [] if start is None else [start]
        self.prompt = torch.tensor([[sizes.image_token_index] * sizes.num_query_tokens + begun + words])

    @torch.inference_mode()
    def captions(self, pictures: Sequence[Any]) -> list[str]:
        """A sentence for each Pillow picture."""
        pixels = pixel_values(pictures, self.side, _MEAN, _STD).to(self.device, self.network.dtype)
        ids = self.prompt.expand(len(pictures), -1).to(self.device)
        written = self.network.generate(
            pixel_values=pixels,
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=self.options.max_tokens,
            do_sample=False,
        )
        if written.shape[1] >= ids.shape[1] and torch.equal(written[:, : ids.shape[1]], ids):
            written = written[:, ids.shape[1] :]
        return [
            " ".join(text.split()) for text in self.tokenizer.batch_decode(written, skip_special_tokens=True)
        ]


class CaptionWorker(PictureWorker):
    """Describes a unit's photos."""

    columns = (("caption", pa.string()),)

    def __init__(self, config: Curation, captioner: Captioner | None = None):
        super().__init__(config)
        self.captioner = captioner or Blip2(config.caption, self.device)
        self.draft_px = self.captioner.side

    def early_verdict(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """The words in the file beside the photo, where there are any."""
        if not self.config.caption.beside:
            return None
        file = picture_path(self.config, row).with_suffix(self.config.caption.beside)
        try:
            text = " ".join(file.read_text(encoding="utf-8", errors="replace").split())
        except OSError:
            return None
        return kept(row["reason"], caption=text) if text else None

    def verdicts(self, rows: list[dict[str, Any]], pictures: list[Any]) -> list[dict[str, Any]]:
        return [
            kept(row["reason"], caption=text) if text else dropped("its caption is empty", caption=text)
            for row, text in zip(rows, self.captioner.captions(pictures), strict=True)
        ]
