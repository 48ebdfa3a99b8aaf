"""`weights`: what the metrics read, fetched when asked for and never before, with pinned hashes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lens_models.metrics.lpips import HEADS_FILE, TRUNK_FILE

from .data.packed import file_hash
from .evaluate.metrics.inception import WEIGHTS_FILE as INCEPTION


@dataclass(frozen=True)
class Pinned:
    """A file with a known hash. home: address of its folder; sha256: its first digits or all."""

    file: str
    title: str
    licence: str
    home: str
    sha256: str

    @property
    def url(self) -> str:
        """Where the file is."""
        return f"{self.home}/{self.file}"


_TORCH = "https://download.pytorch.org/models"
_LPIPS = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1"
_FID = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights"
_HEADS = "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
#: torch names its files after the first eight digits of their hash.
FILES: dict[str, Pinned] = {
    "alexnet": Pinned(TRUNK_FILE, "AlexNet of torchvision, for LPIPS", "BSD-3-Clause", _TORCH, "7be5be79"),
    "lpips": Pinned(HEADS_FILE, "LPIPS 0.1, weights of its five distances", "BSD-2-Clause", _LPIPS, _HEADS),
    "inception": Pinned(INCEPTION, "Inception-v3 of 2015, for FID", "Apache-2.0", _FID, "6726825d"),
}


def fetch(name: str, folder: str | Path) -> Path:
    """A file of `FILES` in a folder; one that is there is hashed and not fetched again.

    Raises ValueError for an unknown name and for a file that is another one; RuntimeError, with what to do by
    hand, without a network and where another file is served.
    """
    from torch.hub import download_url_to_file

    if name not in FILES:
        raise ValueError(f'There are no weights "{name}": use one of {", ".join(FILES)}.')
    pinned, path = FILES[name], Path(folder) / FILES[name].file
    if path.is_file():
        found = file_hash(path)
        if not found.startswith(pinned.sha256):
            raise ValueError(
                f"{path} is not the published file: its sha256 is {found} and should begin with "
                f"{pinned.sha256}. Move it away and fetch it again."
            )
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        download_url_to_file(pinned.url, str(path), hash_prefix=pinned.sha256)
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"{pinned.file} cannot be fetched: {error}. Download it from {pinned.url} and put it into "
            f"{folder}."
        ) from error
    return path
