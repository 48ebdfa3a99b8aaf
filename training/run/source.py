"""Batches from the packed sets: which samples follows from the step, and what is read with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lens_models.generator.camera_words import with_camera_words

from ..config.run import Config
from ..data.packed import CorruptSample, PackedSample, PackedSet
from ..data.sampler import Batches, EpochSampler
from ..distill.batch import Batch
from ..distill.schedule import Turn, turns_before
from ..networks.models import Prompt
from ..networks.text import TextEncoders

_LOOKED_AT = 16


class PackedSource:
    """The `Source` of a run: calling it with a turn and an accumulation's number gives this rank's batch.

    A set is read in its own order, so that a turn of the other set takes nothing from it; the order is the
    same for any number of ranks that make the same global batch. identities: of the sets, by their names.

    Raises ValueError where the config names no set, or one whose latents have another size.
    """

    def __init__(self, config: Config, text: TextEncoders, *, rank: int = 0, world: int = 1):
        self.config, self.text = config, text
        self.global_batch = world * config.accumulation * config.batch
        self.sets = {name: self._opened(name) for name in config.set_names}
        self.identities = {name: packed.identity for name, packed in self.sets.items()}
        self.batches: dict[str, Batches] = {}
        part, share = {"rank": rank, "world": world}, config.data.max_corrupt_share
        for i, (name, packed) in enumerate(self.sets.items()):
            # two sets of one size would otherwise be read in the same order
            seed = 2 * config.seed + i
            sampler = EpochSampler(len(packed), seed=seed, global_batch=self.global_batch, **part)
            self.batches[name] = Batches(packed, sampler, max_corrupt_share=share)
        self._first_place = rank * config.accumulation * config.batch
        self._read: tuple[int, list[PackedSample]] = (-1, [])

    def __call__(self, turn: Turn, i: int) -> Batch:
        """The batch of a turn's accumulation. Raises RuntimeError when too many samples are corrupt."""
        if self._read[0] != turn.step:
            batches = self.batches[turn.set_name]
            batches.step = turns_before(turn.step, self.config)
            self._read = (turn.step, next(batches))
        first, count = i * self.config.batch, self.config.batch
        places = tuple(range(self._first_place + first, self._first_place + first + count))
        return self.batch(self._read[1][first : first + count], places)

    @property
    def corrupt(self) -> int:
        """Different samples that this rank could not read since it was started."""
        return sum(len(batches.corrupt) for batches in self.batches.values())

    def batch(self, samples: Sequence[PackedSample], places: tuple[int, ...]) -> Batch:
        """Samples with their encoded prompts."""

        def encoded(words: str) -> Prompt:
            return self.text([with_camera_words(s.caption, words, s.f_number, s.focal_mm) for s in samples])

        text, pooled = encoded(self.config.prompts)
        teacher = encoded("depth_of_field") if self.config.teacher_prompts == "suffix" else (None, None)
        f_number, focal_mm, sensor_mm = (
            torch.tensor([getattr(s, name) for s in samples], dtype=torch.float32)
            for name in ("f_number", "focal_mm", "sensor_mm")
        )
        mean, std = (torch.stack([getattr(s, name) for s in samples]).float() for name in ("mean", "std"))
        return Batch(mean, std, text, pooled, f_number, focal_mm, sensor_mm, places, *teacher)

    def close(self) -> None:
        """Close the sets' files."""
        for packed in self.sets.values():
            packed.close()

    def _opened(self, name: str) -> PackedSet:
        path = getattr(self.config.data, name)
        if path is None:
            raise ValueError(
                f"data.{name} is not set, and this run reads the {name} set: give its folder, such as "
                f"data.{name}=sets/{name}."
            )
        packed = PackedSet(path, check=self.config.data.check)
        side, found = self.config.latent_side, _latent_shape(packed)
        if found not in ((4, side, side), None):
            raise ValueError(
                f"The latents of {path} are {found}, and size_px {self.config.size_px} needs "
                f"{(4, side, side)}: pack pictures of this size, or change size_px."
            )
        return packed


def _latent_shape(packed: PackedSet) -> tuple[int, ...] | None:
    """Of the first sample that can be read, of some."""
    for index in range(min(len(packed), _LOOKED_AT)):
        try:
            return tuple(packed.latent(index)[0].shape)
        except CorruptSample:
            continue
    return None
