"""Focus over time: keyframes to a distance per frame, and the shake of a per-frame guess smoothed out.

Everything is interpolated in 1/distance, in which blur is linear: halfway there is half the blur.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

LINEAR, SMOOTH, HOLD = "even", "smooth start and stop", "hold, then jump"
EASINGS = (LINEAR, SMOOTH, HOLD)

_INFINITE = ("inf", "infinity", "∞")
_ENTRY = re.compile(r"^\s*(-?\d+)\s*[:=]\s*(\S+?)\s*m?\s*$")


@dataclass(frozen=True)
class Keyframes:
    """frames: rising numbers from 0; distances_m: as many, > 0 or inf; warnings for the artist."""

    frames: tuple[int, ...]
    distances_m: tuple[float, ...]
    warnings: tuple[str, ...] = ()


def read_keyframes(text: str, frame_count: int, named_m: Mapping[str, float] | None = None) -> Keyframes:
    """Keyframes written as "frame: distance", one per line or separated by commas.

    A distance is metres, "inf", or a name out of `named_m`. Frames count from 0; -1 is the last. Without any
    text the named distances are spread evenly over the clip. Keyframes out of order are sorted, with a
    warning; so is one beyond the clip, which the clip then only heads for.
    Raises ValueError for what cannot be read, for a frame named twice, and for no keyframe at all.
    """
    named_m = {name.upper(): value for name, value in (named_m or {}).items()}
    entries = [entry for entry in re.split(r"[\n,;]", text) if entry.strip()]
    if not entries:
        if not named_m:
            raise ValueError('There are no keyframes: write lines such as "0: 1.5" (frame: metres).')
        last = frame_count - 1
        places = [round(i * last / max(1, len(named_m) - 1)) for i in range(len(named_m))]
        return _checked(list(zip(places, named_m.values(), strict=True)), frame_count, ())
    pairs = []
    for entry in entries:
        match = _ENTRY.match(entry)
        if match is None:
            raise ValueError(
                f'"{entry.strip()}" is not a keyframe: write "frame: metres", for example "24: 3.5".'
            )
        frame = int(match[1])
        pairs.append((frame_count + frame if frame < 0 else frame, _distance_m(match[2], entry, named_m)))
    warnings = ()
    if [frame for frame, _ in pairs] != sorted(frame for frame, _ in pairs):
        warnings = ("The keyframes were not in order: they were sorted by frame.",)
    return _checked(sorted(pairs, key=lambda pair: pair[0]), frame_count, warnings)


def _distance_m(word: str, entry: str, named_m: Mapping[str, float]) -> float:
    if word.upper() in named_m:
        return named_m[word.upper()]
    if word.lower() in _INFINITE:
        return math.inf
    try:
        distance = float(word)
    except ValueError:
        known = f" Connected are {', '.join(named_m)}." if named_m else ""
        raise ValueError(
            f'"{entry.strip()}": {word} is neither metres nor a connected focus.{known}'
        ) from None
    if not distance > 0:
        raise ValueError(f'"{entry.strip()}": a focus distance must be greater than 0 m.')
    return distance


def _checked(pairs: list[tuple[int, float]], frame_count: int, warnings: tuple[str, ...]) -> Keyframes:
    frames = [frame for frame, _ in pairs]
    twice = next((a for a, b in pairwise(frames) if a == b), None)
    if twice is not None:
        raise ValueError(f"There are two keyframes for frame {twice}: keep one.")
    if frames[0] < 0:
        raise ValueError(f"Keyframe {frames[0]} lies before the first frame: frames count from 0.")
    if frames[-1] > frame_count - 1:
        warnings += (
            f"Keyframe {frames[-1]} lies beyond the clip, whose last frame is {frame_count - 1}: "
            "the focus does not get there.",
        )
    return Keyframes(tuple(frames), tuple(distance for _, distance in pairs), warnings)


def rack_focus_m(keyframes: Keyframes, frame_count: int, easing: str = LINEAR) -> Tensor:
    """Focus distance of every frame, `(frame_count,)` float64 metres; constant beyond the keyframes.

    easing: "even" changes 1/distance by the same step from frame to frame; "smooth start and stop" eases by
    3 t² - 2 t³; "hold, then jump" keeps each distance until the next keyframe.
    Raises ValueError for an unknown easing.
    """
    if easing not in EASINGS:
        raise ValueError(f'"{easing}" is not an easing: use one of {", ".join(EASINGS)}.')
    at = torch.tensor(keyframes.frames, dtype=torch.float64)
    distance = torch.tensor(keyframes.distances_m, dtype=torch.float64)
    frame = torch.arange(frame_count, dtype=torch.float64)
    after = torch.searchsorted(at, frame, right=True).clamp(1, max(1, len(at) - 1))
    before, after = after - 1, after.clamp_max(len(at) - 1)
    t = ((frame - at[before]) / (at[after] - at[before]).clamp_min(1.0)).clamp(0.0, 1.0)
    if easing == SMOOTH:
        t = t * t * (3.0 - 2.0 * t)
    elif easing == HOLD:
        t = (t >= 1.0).double()
    between = 1.0 / ((1.0 - t) / distance[before] + t / distance[after])
    # a keyframe's own distance comes out to the bit
    return torch.where(t <= 0.0, distance[before], torch.where(t >= 1.0, distance[after], between))


def smoothed_m(distance_m: Tensor, frames: float) -> Tensor:
    """Distances `(B,)` of consecutive frames without their jitter: a Gaussian over 1/distance.

    frames: standard deviation in frames; 0 changes nothing. The ends of the clip repeat.
    Raises ValueError for a negative number of frames.
    """
    if not frames >= 0:
        raise ValueError(f"Smoothing over {frames:g} frames: it must be 0 or more.")
    reach = min(math.ceil(3 * frames), 10 * len(distance_m))
    if reach == 0 or len(distance_m) == 1:
        return distance_m
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64, device=distance_m.device)
    kernel = torch.exp(-0.5 * (axis / frames) ** 2)
    inverse = F.pad(1.0 / distance_m.double()[None, None], (reach, reach), mode="replicate")
    inverse = F.conv1d(inverse, (kernel / kernel.sum())[None, None])[0, 0]
    return (1.0 / inverse).to(distance_m.dtype)
