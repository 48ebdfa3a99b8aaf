"""Files of ComfyUI's input folder as a node's input."""

from __future__ import annotations

from pathlib import Path

import folder_paths


def is_there(file: str, unchosen: str, kind: str) -> bool | str:
    """True, or a sentence: `unchosen` where none is chosen, else that this `kind` of file is missing."""
    if not file:
        return unchosen
    if not folder_paths.exists_annotated_filepath(file):
        return f"{file} is not in ComfyUI's input folder: put it there, or choose another {kind}."
    return True


def fingerprint(file: str) -> str:
    """Changes with the file, so that a node runs again."""
    try:
        return stamp(Path(folder_paths.get_annotated_filepath(file)))
    except ValueError:
        return "missing"


def stamp(path: Path) -> str:
    """Time and size of a file."""
    try:
        stat = path.stat()
    except OSError:
        return "missing"
    return f"{stat.st_mtime_ns}:{stat.st_size}"
