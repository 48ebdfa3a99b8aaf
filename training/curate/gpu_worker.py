"""Workers that give pixels to a network, several photos at a time, on the GPU where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..config.load import ConfigError
from .flow import RowWorker, Undecodable, dropped
from .options import Caption, Curation, Photo, digest
from .pixels import to_tensor


class PictureWorker(RowWorker):
    """Opens a unit's photos and asks `verdicts` about as many as the stage's `batch` says.

    draft_px: the photos' shorter side may be smaller than it is, down to this; None for all pixels.
    """

    gpu = True
    draft_px: int | None = None

    def __init__(self, config: Curation):
        super().__init__(config)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.batch = getattr(config, self.stage).batch

    def verdicts(self, rows: list[dict[str, Any]], pictures: list[Any]) -> list[dict[str, Any]]:
        """On rows whose Pillow pictures these are."""
        raise NotImplementedError

    def early_verdict(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """A verdict that needs no picture, or None."""

    def judge(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        verdicts = [self.early_verdict(row) for row in rows]
        waiting = [number for number, verdict in enumerate(verdicts) if verdict is None]
        for start in range(0, len(waiting), self.batch):
            pictures: dict[int, Any] = {}
            for number in waiting[start : start + self.batch]:
                try:
                    pictures[number] = self.open(rows[number], self.draft_px)
                except Undecodable as error:
                    verdicts[number] = dropped(str(error))
            if pictures:
                answers = self.verdicts([rows[number] for number in pictures], list(pictures.values()))
                for number, verdict in zip(pictures, answers, strict=True):
                    verdicts[number] = verdict
        return cast("list[dict[str, Any]]", verdicts)


class PictureModel:
    """A model of transformers that reads pictures and words. prompt: `(1, T)`; side: px.

    kind: its class in transformers. half: type of the weights on a GPU. pixels: their mean and std.
    """

    side: int
    prompt: Tensor

    def __init__(self, kind: str, options: Photo | Caption, device: str, half: torch.dtype, pixels: tuple):
        self.device, self.pixels = device, pixels
        dtype = half if device == "cuda" else torch.float32
        self.tokenizer = pretrained("AutoTokenizer", options)
        self.network = pretrained(kind, options, dtype=dtype).to(device).eval()

    def inputs(self, pictures: Sequence[Any]) -> dict[str, Tensor]:
        """Pillow pictures, squashed to a square and normalised, `(B, 3, side, side)`, with the prompt."""
        from PIL import Image

        size = (self.side, self.side)
        squares = [to_tensor(picture.resize(size, Image.Resampling.BICUBIC)) for picture in pictures]
        mean, std = (torch.tensor(values)[:, None, None] for values in self.pixels)
        values = (torch.stack(squares).float() / 255.0 - mean) / std
        ids = self.prompt.expand(len(pictures), -1).to(self.device)
        return {
            "pixel_values": values.to(self.device, self.network.dtype),
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
        }


class ModelWorker(PictureWorker):
    """Asks a model of transformers. kind: for the sentence. Model: makes it, of options and device."""

    kind: str
    Model: Any

    def __init__(self, config: Curation, model: Any = None):
        super().__init__(config)
        self.model = model or self.Model(getattr(config, self.stage), self.device)
        self.draft_px = self.model.side

    @classmethod
    def extra(cls, config: Curation, **more: Any) -> str:
        """What the model is: its commit, or sizes and times of a folder's files. ConfigError without one."""
        options = getattr(config, cls.stage)
        if not options.model:
            raise ConfigError(
                f"{cls.stage}.model must be set to the folder of {cls.kind} model, or {cls.stage}.skip to "
                "true."
            )
        folder = Path(options.model)
        if not folder.is_dir():
            return digest(f"{options.model} {options.revision}")
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return digest(repr([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]))


def pretrained(kind: str, options: Photo | Caption, **more: Any) -> Any:
    """A model or tokenizer of transformers, from a folder or the hub's local copy; nothing is downloaded.

    Raises ConfigError where it is not there, or a name comes without a revision.
    """
    import transformers

    model, what = options.model, type(options).__name__.lower()
    if not model or not (Path(model).is_dir() or options.revision):
        raise ConfigError(
            f"{what}.model is {model}, which is no folder here: give a folder, or a name with "
            f"{what}.revision, the commit of the files."
        )
    try:
        loader = getattr(transformers, kind)
        return loader.from_pretrained(model, revision=options.revision, local_files_only=True, **more)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{what}.model {model} cannot be loaded, and nothing is downloaded by this program: {error}"
        ) from error
