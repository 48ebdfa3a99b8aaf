"""The seventh stage: words for photos that have none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch

from ..config.load import ConfigError
from .flow import dropped, kept, picture_path
from .gpu_worker import ModelWorker, PictureModel
from .options import Caption

#: Mean and standard deviation of the pixels that BLIP-2 was trained with.
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Blip2(PictureModel):
    """BLIP-2, the most probable word at a time: the same caption in every run."""

    def __init__(self, options: Caption, device: str = "cpu"):
        super().__init__("Blip2ForConditionalGeneration", options, device, torch.float16, _CLIP)
        self.options, sizes = options, self.network.config
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
        inputs = self.inputs(pictures)
        written = self.network.generate(**inputs, max_new_tokens=self.options.max_tokens, do_sample=False)
        ids = inputs["input_ids"]
        if written.shape[1] >= ids.shape[1] and torch.equal(written[:, : ids.shape[1]], ids):
            written = written[:, ids.shape[1] :]
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]


class CaptionWorker(ModelWorker):
    """Describes a unit's photos."""

    columns = (("caption", pa.string()),)
    kind, Model = "a BLIP-2", Blip2

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
            for row, text in zip(rows, self.model.captions(pictures), strict=True)
        ]


run = CaptionWorker.run
