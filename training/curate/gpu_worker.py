"""Workers that give pixels to a network, several photos at a time, on the GPU where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..config.load import ConfigError
from .flow import Done, Engine, Progress, RowWorker, Undecodable, dropped, judge_photos
from .options import Curation, digest
from .pixels import to_tensor


class PictureWorker(RowWorker):
    """Opens a unit's photos and asks `verdicts` about as many as the stage's `batch` says.

    draft_px: the photos' shorter side may be smaller than it is, down to this; None for all pixels.
    """

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


def judge_with_model(
    config: Curation,
    stage: str,
    worker: type[PictureWorker],
    kind: str,
    before: Done,
    engine: Engine,
    progress: Progress | None,
) -> Done:
    """Run the stage of a model of transformers over all photos; kind: of model, for the sentence.

    Raises ConfigError where the config names none.
    """
    options = getattr(config, stage)
    if not options.model:
        raise ConfigError(
            f"{stage}.model must be set to the folder of {kind} model, or {stage}.skip to true."
        )
    model = digest(identity(options.model, options.revision))
    return judge_photos(config, stage, worker, before, engine, progress, extra=model, gpu=True)


def pixel_values(pictures: Sequence[Any], side: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pillow pictures as a network of pictures and words takes them: squashed to a square, normalised.

    Returns `(B, 3, side, side)`.
    """
    from PIL import Image

    squares = [picture.resize((side, side), Image.Resampling.BICUBIC) for picture in pictures]
    values = torch.stack([to_tensor(square) for square in squares]).float() / 255.0
    return (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def pretrained(kind: Any, model: str | None, revision: str | None, what: str, **more: Any) -> Any:
    """A model or tokenizer of transformers, from a folder or the hub's local copy; nothing is downloaded.

    what: names the setting. Raises ConfigError where it is not there, or a name comes without a revision.
    """
    if not model or not (Path(model).is_dir() or revision):
        raise ConfigError(
            f"{what}.model is {model}, which is no folder here: give a folder, or a name with "
            f"{what}.revision, the commit of the files."
        )
    try:
        return kind.from_pretrained(model, revision=revision, local_files_only=True, **more)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{what}.model {model} cannot be loaded, and nothing is downloaded by this program: {error}"
        ) from error


def identity(model: str | None, revision: str | None) -> str:
    """What a model is, for the names of units: its commit, or sizes and times of a folder's files."""
    folder = Path(model or "")
    if not folder.is_dir():
        return f"{model} {revision}"
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return repr([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files])
