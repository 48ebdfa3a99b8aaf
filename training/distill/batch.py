"""What a turn of a stage reads and reports, and the check that all of it is finite."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from ..networks.fsdp import mean_over_ranks
from ..networks.models import Prompt


class NotFinite(RuntimeError):
    """A value that training cannot go on from. here: on this rank, not only on another one."""

    def __init__(self, message: str, here: bool = True):
        super().__init__(message)
        self.here = here


@dataclass(frozen=True, eq=False)
class Batch:
    """A rank's samples of one accumulation, from the turn's set.

    mean, std: the autoencoder's, of the photos, `(B, 4, h, w)`. text `(B, L, D)`, pooled `(B, P)`: encoded
    prompts. f_number, focal_mm, sensor_mm: `(B,)`, of the photos. samples: each one's place in the global
    batch of this step. teacher_text, teacher_pooled: with `teacher_prompts: suffix`.
    """

    mean: Tensor
    std: Tensor
    text: Tensor
    pooled: Tensor
    f_number: Tensor
    focal_mm: Tensor
    sensor_mm: Tensor
    samples: tuple[int, ...]
    teacher_text: Tensor | None = None
    teacher_pooled: Tensor | None = None

    @property
    def prompt(self) -> Prompt:
        """What generator and fake score read."""
        return Prompt(self.text, self.pooled)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, on the CPU, as they are saved beside an error."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        found["samples"] = torch.tensor(self.samples)
        return {name: t.detach().cpu().contiguous() for name, t in found.items() if t is not None}


@dataclass
class Report:
    """What a turn did. losses: unweighted; watched: further numbers for the log; seen: values of which the
    distribution is watched, such as each sample's focus distance. sample: the last latent.
    """

    losses: dict[str, float] = field(default_factory=dict)
    watched: dict[str, float] = field(default_factory=dict)
    seen: dict[str, Tensor] = field(default_factory=dict)
    sample: Tensor | None = None


def finite(value: Tensor, what: str) -> Tensor:
    """The value itself. Raises NotFinite, on all ranks together, when something is infinite or not a number.

    All ranks must call it; one that stopped alone would leave the others waiting for it.
    """
    wrong = value.numel() - int(torch.isfinite(value.detach()).sum())
    problem = f"{what} is not finite: {wrong} of {value.numel()} values are NaN or infinite."
    agree(problem if wrong else None, value.device)
    return value


def agree(problem: str | None, device: torch.device) -> None:
    """Raises NotFinite where a rank has a problem, on all ranks together, which call this together."""
    if mean_over_ranks(torch.tensor(float(problem is not None), device=device)).item():
        raise NotFinite(problem or "A value on another rank is not finite.", here=problem is not None)
