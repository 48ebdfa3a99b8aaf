"""Files of ComfyUI's input folder as a node's input."""

from __future__ import annotations

from pathlib import Path

import folder_paths


def is_there(file: str, unchosen: str, another: str) -> bool | str:
    """True, or a sentence: `unchosen` where none is named, else that it is missing and to take `another`."""
    if not file:
        return unchosen
    if not folder_paths.exists_annotated_filepath(file):
        return f"{file} is not in ComfyUI's input folder: put it there, or choose another {another}."
    return True


def fingerprint(file: str) -> str:
    """Changes with the file, so that a node runs again."""
    try:
        found = Path(folder_paths.get_annotated_filepath(file)).stat()
    except (OSError, ValueError):
        return "missing"
    return f"{found.st_mtime_ns}:{found.st_size}"
