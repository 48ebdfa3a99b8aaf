"""`weights`: what the metrics read, fetched when asked for and never before, with pinned hashes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lens_models.depth.catalog import Published, download
from lens_models.metrics.lpips import HEADS_FILE, TRUNK_FILE

from .data.packed import file_hash
from .evaluate.metrics.inception import WEIGHTS_FILE as INCEPTION


@dataclass(frozen=True)
class Pinned(Published):
    """A file with a known hash. home: address of the folder it is in; sha256: its first digits or all."""

    home: str = ""
    sha256: str = ""

    @property
    def url(self) -> str:
        """Where the file is."""
        return f"{self.home}/{self.file}"

    def check(self, path: Path) -> None:
        """Raises ValueError, with both hashes, for another file."""
        found = file_hash(path)
        if not found.startswith(self.sha256):
            raise ValueError(f"its sha256 is {found} and should begin with {self.sha256}.")


#: torch names its files after the first eight digits of their hash.
FILES: dict[str, Pinned] = {
    "alexnet": Pinned(
        TRUNK_FILE,
        "AlexNet of torchvision, for LPIPS",
        "pytorch/vision",
        244_408_911,
        "BSD-3-Clause",
        "https://download.pytorch.org/models",
        "7be5be79",
    ),
    "lpips": Pinned(
        HEADS_FILE,
        "LPIPS 0.1, the weights of its five distances",
        "richzhang/PerceptualSimilarity",
        6_009,
        "BSD-2-Clause",
        "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1",
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    ),
    "inception": Pinned(
        INCEPTION,
        "Inception-v3 of 2015, for FID",
        "mseitzer/pytorch-fid",
        95_628_359,
        "Apache-2.0",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights",
        "6726825d",
    ),
}


def fetch(name: str, folder: str | Path, on_progress: Callable[[int, int], None] | None = None) -> Path:
    """A file of `FILES` in a folder; one that is there is hashed and not fetched again.

    Raises ValueError for an unknown name and for a file that is another one; DownloadError, with what to do
    by hand, without a network.
    """
    if name not in FILES:
        raise ValueError(f'There are no weights "{name}": use one of {", ".join(FILES)}.')
    pinned, path = FILES[name], Path(folder) / FILES[name].file
    if not path.is_file():
        return download(pinned, folder, check=pinned.check, on_progress=on_progress)
    try:
        pinned.check(path)
    except ValueError as error:
        raise ValueError(
            f"{path} is not the published file: {error} Move it away and fetch it again."
        ) from error
    return path
