"""Which depth networks there are: files and folders on this machine, and published ones to download.

huggingface_hub is not used: as of 2.4 it removes what arrived when a download is interrupted or fails, so
that gigabytes would start anew; nor does it fetch from elsewhere, as training needs.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import logging
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..progress import Progress

log = logging.getLogger("fine_defocus")

#: Files that may hold weights.
SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
#: Marks an entry that is not on this machine yet.
TO_DOWNLOAD = " (download)"
_PART = ".part"
_TRIES, _PAUSE_S, _PATIENCE_S, _BLOCK = 4, 1.0, 30.0, 1 << 20
#: A published file may be uploaded again with other book-keeping, but it keeps its weights.
_SIZE_TOLERANCE = 0.02


class DownloadError(RuntimeError):
    """A file could not be fetched; the message says how to get it by hand."""


@dataclass(frozen=True)
class Published:
    """A checkpoint that can be fetched from its published home on Hugging Face.

    file: its name. title: for people. repository: owner/name. size: bytes. licence: of code and weights.
    """

    file: str
    title: str
    repository: str
    size: int
    licence: str

    @property
    def entry(self) -> str:
        """The name in a list of choices."""
        return self.file + TO_DOWNLOAD

    @property
    def url(self) -> str:
        """Where the file is; a mirror of Hugging Face can be named in HF_ENDPOINT."""
        home = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
        return f"{home}/{self.repository}/resolve/main/{self.file}"

    def by_hand(self, folder: Path) -> str:
        """What to do without a network."""
        return f"Download {self.file} ({megabytes(self.size)}) from {self.url} and put it into {folder}."


_LICENCE = "code BSD-2-Clause; the repository of the weights states no licence"
_HOME = "JUGGHM/Metric3D"
PUBLISHED = tuple(
    Published(f"metric_depth_vit_{name}_800k.pth", f"Metric3Dv2 ViT-{letter}", _HOME, size, _LICENCE)
    for name, letter, size in (
        ("small", "S", 150_000_000),
        ("large", "L", 1_647_972_663),
        ("giant2", "g2", 5_511_000_000),
    )
)  # fmt: skip


def megabytes(count: float) -> str:
    """A number of bytes for people.

    >>> megabytes(150_000_000), megabytes(5_511_000_000), megabytes(1200)
    ('150 MB', '5.51 GB', '1,200 bytes')
    """
    if count >= 1e9:
        return f"{count / 1e9:.2f} GB"
    return f"{count / 1e6:.3g} MB" if count >= 1e5 else f"{count:,.0f} bytes"


def local_models(places: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Networks on this machine by the name to show: files of weights, and transformers folders.

    places: (prefix of the names, folder), the first of two equal names counts. A transformers folder is one
    with a config.json, and what lies inside it is part of it.
    """
    models: dict[str, Path] = {}
    for prefix, place in places:
        for folder, inside, files in os.walk(place, followlinks=True):
            at = Path(folder)
            if at != place and "config.json" in files:
                inside.clear()
                models.setdefault(prefix + at.relative_to(place).as_posix(), at)
                continue
            inside[:] = [name for name in inside if not name.startswith(".")]
            for name in files:
                if name.lower().endswith(SUFFIXES):
                    models.setdefault(prefix + (at / name).relative_to(place).as_posix(), at / name)
    return dict(sorted(models.items(), key=lambda item: item[0].lower()))


def choices(local: Mapping[str, Path]) -> list[str]:
    """What there is to choose from: what is on this machine, then what is published.

    What was downloaded stays under both names: a workflow that was saved before keeps its choice.
    """
    return [*local, *(p.entry for p in PUBLISHED)]


def find(choice: str, local: Mapping[str, Path]) -> Path | Published:
    """What an entry means; one that was downloaded since is found where it is now.

    Raises ValueError for an entry that is neither here nor published.
    """
    name = choice.removesuffix(TO_DOWNLOAD)
    if name in local:
        return local[name]
    published = next((p for p in PUBLISHED if p.file == name), None)
    if published is None:
        raise ValueError(
            f"{name} is not among the depth models on this machine: put it into models/geometry_estimation "
            "and press R, or choose another."
        )
    if choice == name:
        raise ValueError(
            f'{name} is not on this machine: choose "{published.entry}", or put the file from '
            f"{published.url} into models/geometry_estimation and press R."
        )
    return published


def download(
    published: Published, folder: Path, *, check: Callable, on_progress: Progress | None = None
) -> Path:
    """Fetch a checkpoint into a folder; returns the file.

    What arrived stays as FILE.part and is continued by the next call. The file gets its name only when it is
    whole and `check(path)` did not raise.
    on_progress: called with (bytes here, bytes in all); what it raises ends the download and keeps the part.
    Raises DownloadError, with what to do, when there is no network, no room or another file than published.
    """
    target, part = folder / published.file, folder / (published.file + _PART)
    by_hand = published.by_hand(folder)
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise DownloadError(f"HF_HUB_OFFLINE is set, so nothing is downloaded. {by_hand}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log.info("Downloading %s to %s (%s)", published.url, target, published.licence)
        _fetch(published, part, on_progress or (lambda here, total: None), by_hand)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        what = "The disk is full" if full else f"{part} cannot be written ({error})"
        raise DownloadError(f"{what}. {by_hand}") from error
    try:
        check(part)
    except ValueError as error:
        part.unlink()
        raise DownloadError(
            f"What {published.url} gave is not the published file, so it was removed: {error}"
        ) from error
    os.replace(part, target)
    log.info("Downloaded %s", target)
    return target


def _fetch(published: Published, part: Path, on_progress: Progress, by_hand: str) -> None:
    """Continue `part` until it is whole. OSErrors are the disk's; the network's become DownloadError."""
    certificates, reason, tries = _certificates(), "", _TRIES
    while tries:
        tries -= 1
        have = _size(part)
        request = urllib.request.Request(published.url, headers={"Accept-Encoding": "identity"})
        if have:
            request.add_header("Range", f"bytes={have}-")
        try:
            answer = urllib.request.urlopen(request, timeout=_PATIENCE_S, context=certificates)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and have:  # nothing after what is here: whole, or of another file
                    if _span(error)[1] == have and _is_size(have, published):
                        return
                    part.unlink()
            reason = f"it answered {error.code} {error.reason}"
            if error.code < 500 and error.code not in (416, 429):
                break
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        else:
            with answer:
                here, total = _span(answer)
                if answer.status != 206 or here != have:
                    here = 0
                if not _is_size(total, published):
                    raise DownloadError(
                        f"{published.url} offers {megabytes(total)}, but the published file has "
                        f"{megabytes(published.size)}: it is another file. {by_hand}"
                    )
                free = shutil.disk_usage(part.parent).free
                if free < total - here:
                    raise DownloadError(
                        f"{part.parent} has room for {megabytes(free)}, and {megabytes(total - here)} are to "
                        f"come. {by_hand}"
                    )
                reason = _receive(answer, part, here, total, on_progress)
            if _size(part) == total:
                return
            if _size(part) > total:
                part.unlink()
            elif _size(part) > here:
                tries = max(tries, 1)  # it goes on, if slowly
        if tries:
            time.sleep(_PAUSE_S)
    have = _size(part)
    rest = f" {megabytes(have)} are here already, and the next run goes on from there." if have else ""
    raise DownloadError(f"{published.url} could not be read: {reason}.{rest} {by_hand}")


def _receive(
    answer: http.client.HTTPResponse, part: Path, here: int, total: int, on_progress: Progress
) -> str:
    """Append the body to `part`, of which `here` bytes stay; returns why it ended."""
    with part.open("r+b" if here else "wb") as file:
        file.seek(here)
        file.truncate()
        while True:
            on_progress(here, total)
            try:
                block = answer.read(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                return str(error) or type(error).__name__
            if not block:
                return "the connection ended"
            file.write(block)
            here += len(block)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _span(answer: http.client.HTTPResponse | urllib.error.HTTPError) -> tuple[int, int]:
    """First byte of an answer, and bytes of the whole file; 0 where the server does not say."""
    span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", answer.headers.get("Content-Range", ""))
    length = answer.headers.get("Content-Length", "")
    return (int(span[1] or 0), int(span[2])) if span else (0, int(length) if length.isdigit() else 0)


def _is_size(count: int, published: Published) -> bool:
    return abs(count - published.size) <= _SIZE_TOLERANCE * published.size


def _certificates() -> ssl.SSLContext:
    """What the system trusts, and certifi's list, because some Pythons find no list of the system."""
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context
