"""What a study compares: a JSON file that names one clip or picture per prompt and method."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

QUESTION = (
    "Only the aperture changes, from wide open to nearly closed. Which side looks more like one scene taken "
    "by a real camera?"
)
VIDEOS = (".mp4", ".webm")
PICTURES = (".webp", ".png", ".jpg", ".jpeg", ".gif")


class ManifestError(ValueError):
    """A manifest that no study can be made of; the message says what to change."""


@dataclass(frozen=True)
class Prompt:
    """One prompt: its id, its text, and a file for every method by the method's id."""

    id: str
    text: str
    media: dict[str, Path]


@dataclass(frozen=True)
class Manifest:
    """A study: `methods` maps ids to names in the order of the results, `ours` is one of its ids.

    digest: SHA-256 of what the file says; a store of votes belongs to it.
    """

    question: str
    ours: str
    methods: dict[str, str]
    prompts: tuple[Prompt, ...]
    digest: str

    @property
    def baselines(self) -> tuple[str, ...]:
        return tuple(method for method in self.methods if method != self.ours)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All (prompt id, baseline id) that can be asked."""
        return tuple((prompt.id, baseline) for prompt in self.prompts for baseline in self.baselines)

    def prompt(self, name: str) -> Prompt:
        return next(prompt for prompt in self.prompts if prompt.id == name)


def read_manifest(path: str | Path) -> Manifest:
    """Read and check a manifest; files are relative to its folder.

    {"question": "...", "ours": "ours", "methods": {"ours": "Ours", "taf": "SDXL + TAF"},
     "prompts": [{"id": "cat", "prompt": "a cat on a wall", "media": {"ours": "a.webm", "taf": "b.webm"}}]}

    Raises ManifestError for a missing or unknown entry, a missing file, and a pair of a video and a picture.
    """
    path = Path(path)
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ManifestError(f"{path} is no JSON: {error}.") from error
    if not isinstance(read, dict):
        raise ManifestError(f"{path} has to hold one JSON object with ours, methods and prompts.")
    unknown = set(read) - {"question", "ours", "methods", "prompts"}
    if unknown:
        known = "question, ours, methods and prompts"
        raise ManifestError(f"{path} has {', '.join(sorted(unknown))}, but only {known} are read.")
    question, ours, methods = read.get("question", QUESTION), read.get("ours"), read.get("methods")
    if not isinstance(methods, dict) or len(methods) < 2 or not all(_text(n) for n in methods.values()):
        raise ManifestError(f"{path}: methods has to name ours and at least one baseline, as id: name.")
    if not isinstance(ours, str) or ours not in methods:
        raise ManifestError(f"{path}: ours is {ours!r}, but the methods are {', '.join(methods)}.")
    if not _text(question):
        raise ManifestError(f"{path}: question has to be a sentence.")
    if not isinstance(read.get("prompts"), list) or not read["prompts"]:
        raise ManifestError(f"{path}: prompts has to be a list of at least one prompt.")
    prompts = tuple(_prompt(entry, methods, path) for entry in read["prompts"])
    names = [prompt.id for prompt in prompts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ManifestError(f"{path}: more than one prompt has the id {', '.join(twice)}.")
    digest = hashlib.sha256(json.dumps({**read, "question": question}, sort_keys=True).encode()).hexdigest()
    return Manifest(question, ours, dict(methods), prompts, digest)


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _prompt(entry: object, methods: dict[str, str], path: Path) -> Prompt:
    if not isinstance(entry, dict) or not _text(entry.get("id")) or not _text(entry.get("prompt")):
        raise ManifestError(f"{path}: every prompt needs id, prompt and media; one is {str(entry)[:80]}.")
    name, files = entry["id"], entry.get("media")
    if not isinstance(files, dict) or set(files) != set(methods):
        found = ", ".join(files) if isinstance(files, dict) and files else "nothing"
        raise ManifestError(
            f"{path}: prompt {name} has files for {found}, but the methods are {', '.join(methods)}."
        )
    media = {method: path.parent / str(file) for method, file in files.items()}
    for method, full in media.items():
        if full.suffix.lower() not in VIDEOS + PICTURES:
            raise ManifestError(f"{full}: a browser shows {', '.join(VIDEOS + PICTURES)}.")
        if not full.is_file():
            raise ManifestError(f"{full} is missing; it is {methods[method]} of prompt {name}.")
    if len({is_video(file) for file in media.values()}) > 1:
        raise ManifestError(f"{path}: prompt {name} mixes videos and pictures, which cannot play in step.")
    return Prompt(name, entry["prompt"].strip(), media)
