"""Workers that look at pixels with a network, several photos at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config.load import ConfigError
from .flow import (
    Done,
    Engine,
    Progress,
    RowWorker,
    counts,
    dropped,
    inputs_of,
    picture_path,
    run_stage,
    write_settings,
)
from .options import Curation, digest
from .pixels import open_photo, to_tensor


class Seeing(RowWorker):
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

    def judge(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for start in range(0, len(rows), self.batch):
            found += self._batch(rows[start : start + self.batch])
        return found

    def _batch(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        pictures: dict[int, Any] = {}
        for place, row in enumerate(rows):
            try:
                pictures[place] = open_photo(picture_path(self.config, row), draft_px=self.draft_px)
            except Exception as error:  # damaged files fail in every way there is
                reason = f"its pixels cannot be decoded: {str(error) or type(error).__name__}"
                found[place] = dropped(reason)
        if pictures:
            told = self.verdicts([rows[place] for place in pictures], list(pictures.values()))
            found |= dict(zip(pictures, told, strict=True))
        return [found[place] for place in range(len(rows))]


def ask_model(
    config: Curation,
    stage: str,
    worker: type[Seeing],
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
    done = run_stage(
        config,
        stage,
        inputs_of(before),
        partial(worker, config),
        engine,
        extra=digest(identity(options.model, options.revision)),
        gpu=True,
        total=counts(config, before)[0],
        progress=progress,
    )
    write_settings(config, done)
    return done


def pixel_values(pictures: Sequence[Any], side: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pillow pictures as a network of pictures and words takes them: squashed to a square, normalised.

    Returns `(B, 3, side, side)`.
    """
    from PIL import Image

    squares = [picture.resize((side, side), Image.Resampling.BICUBIC) for picture in pictures]
    values = torch.stack([to_tensor(square) for square in squares]).float() / 255.0
    return (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def pretrained(kind: Any, model: str, revision: str | None, what: str, **more: Any) -> Any:
    """A model or tokenizer of transformers, from a folder or the hub's local copy; nothing is downloaded.

    what: names the setting. Raises ConfigError where it is not there, or a name comes without a revision.
    """
    if not Path(model).is_dir() and not revision:
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
    told = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.iterdir()) if p.is_file()]
    return repr(told)
