"""What a generator's file says about itself, and what is known of the public ones by their names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ..weights import read_metadata
from .schedule import FOUR_STEPS, ONE_STEP_STUDENT, TABLE_LENGTH

FORMAT = "fine-defocus generator 1"
EPS = "eps"
PUBLIC_DMD2_LICENCE = "CC BY-NC 4.0, non-commercial (public DMD2 weights)"
UNKNOWN_LICENCE = "the file states no licence"
_LONGEST_LICENCE = 200


@dataclass(frozen=True)
class GeneratorCard:
    """name: of the file. licence: in words for people. prediction: of the network, "eps" for noise.

    timesteps: those it was trained for, None where unknown. stage: of our training, empty for other files.
    """

    name: str
    licence: str = UNKNOWN_LICENCE
    prediction: str = EPS
    timesteps: tuple[int, ...] | None = None
    stage: str = ""

    @property
    def summary(self) -> str:
        """One line for the node."""
        steps = f"{len(self.timesteps)}-step" if self.timesteps else "steps unknown, 4 assumed"
        return f"{self.name}: {steps}, licence: {self.licence}"


def export_metadata(
    *, timesteps: Sequence[int] = FOUR_STEPS, licence: str, stage: str = "", **further: str
) -> dict[str, str]:
    """Header of an exported generator; further: strings such as the hashes of config, data and code."""
    return {
        "format": FORMAT,
        "prediction": EPS,
        "steps": str(len(timesteps)),
        "timesteps": json.dumps(list(timesteps)),
        "licence": licence,
        "stage": stage,
        **further,
    }


def read_card(path: str | Path) -> GeneratorCard:
    """The card of a file: its header where we wrote it, else what its name tells.

    Raises ValueError, in a sentence, for a damaged file, or one that this version does not understand.
    """
    path = Path(path)
    header = read_metadata(path) if path.suffix in (".safetensors", ".sft") else {}
    if not header.get("format", "").startswith("fine-defocus generator"):
        return _by_name(path.name, header)
    if header["format"] != FORMAT:
        raise ValueError(
            f'{path.name} is written as "{header["format"]}" and this version reads "{FORMAT}": update Fine '
            "Defocus."
        )
    prediction = header.get("prediction", EPS)
    if prediction != EPS:
        raise ValueError(
            f'{path.name} predicts "{prediction}"; the sampler is for noise prediction ("{EPS}").'
        )
    licence, steps = header.get("licence") or UNKNOWN_LICENCE, _timesteps(header, path.name)
    return GeneratorCard(path.name, licence, prediction, steps, header.get("stage", ""))


def _timesteps(header: Mapping[str, str], name: str) -> tuple[int, ...]:
    try:
        steps = tuple(int(t) for t in json.loads(header["timesteps"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name} does not say for which timesteps it was trained: export it again."
        ) from error
    falling = all(a > b for a, b in pairwise(steps))
    if not steps or not falling or not all(0 <= t < TABLE_LENGTH for t in steps):
        raise ValueError(
            f"{name} gives the timesteps {list(steps)}: they must fall, from {TABLE_LENGTH - 1} at most to 0 "
            "at least. Export it again."
        )
    return steps


def _by_name(name: str, header: Mapping[str, str]) -> GeneratorCard:
    plain = name.lower().replace("-", "_")
    stated = header.get("licence") or header.get("license") or header.get("modelspec.license") or ""
    stated = " ".join(stated.split())[:_LONGEST_LICENCE]
    if "dmd2" not in plain:
        return GeneratorCard(name, stated or UNKNOWN_LICENCE)
    one = "1step" in plain or "1_step" in plain
    return GeneratorCard(name, PUBLIC_DMD2_LICENCE, timesteps=ONE_STEP_STUDENT if one else FOUR_STEPS)
