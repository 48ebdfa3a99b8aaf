"""One channel out of an OpenEXR file: depth lives in channels such as "Z" or "ViewLayer.Depth.Z".

The OpenEXR library reads every kind of file; OpenCV's wheels come without EXR and FFmpeg wants colour.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

#: Tried in this order when no channel is named; the last part of a layered name counts.
_DEPTH_NAMES = ("z", "depth", "distance", "y", "v", "r")


def read_exr(path: Path, channel: str = "") -> tuple[np.ndarray, str]:
    """One channel of an EXR file.

    channel: full name or its last part, in any case; empty takes Z, depth, distance, Y, V or R.
    Returns `(H, W)` float32 and the channel's name. Raises ValueError when the library is missing, when the
    file is damaged or holds deep pixels, and when it has no such channel.
    """
    try:
        import OpenEXR
    except ImportError as error:
        raise ValueError(
            f"{path.name} needs the OpenEXR library, which is not installed: pip install OpenEXR, or save "
            "the depth as 16-bit PNG, TIFF or NPY."
        ) from error
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: one.pixels for part in file.parts for name, one in part.channels.items()}
            if not channels:  # the library only prints a warning when it cannot decode a part
                raise RuntimeError("no channel can be decoded")
            name = _choose(sorted(channels), channel, path.name)
            values = np.array(channels[name], dtype=np.float32)
    except RuntimeError as error:
        raise ValueError(f"{path.name} cannot be read ({error}). Save it again.") from error
    if values.ndim != 2:
        raise ValueError(
            f"{path.name} holds deep pixels: flatten it to one distance per pixel and save it again."
        )
    return values, name


def _choose(names: list[str], wanted: str, file: str) -> str:
    listed = ", ".join(names)
    if wanted.strip():
        asked = wanted.strip().lower()
        for matches in (
            [n for n in names if n.lower() == asked],
            [n for n in names if n.lower().split(".")[-1] == asked],
        ):
            if len(matches) > 1:
                raise ValueError(
                    f'Several channels of {file} are called "{wanted}": write one in full, of {listed}.'
                )
            if matches:
                return matches[0]
        raise ValueError(f'{file} has no channel "{wanted}": it has {listed}.')
    if len(names) == 1:
        return names[0]
    for kind in _DEPTH_NAMES:
        for name in names:
            parts = name.lower().split(".")
            if parts[-1] == kind or (kind == "depth" and "depth" in parts):
                return name
    raise ValueError(f"{file} has no channel that looks like depth: write one of {listed} into channel.")
