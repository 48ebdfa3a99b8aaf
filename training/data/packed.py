"""The packed set: WebDataset tars beside an index of byte ranges, so that any sample is one `pread` away.

    SET/manifest.json        format, number of samples, size and sha256 of the index and of every shard
    SET/index.parquet        one row per sample: where its bytes are, their sha256, camera, caption, crop
    SET/latents/000000.tar   KEY.safetensors: `mean` and `std` of the VAE, fp16 `(C, H, W)`
    SET/images/000000.tar    KEY.jpg, where the set has pictures

Tars hold no times and no owners: the same samples in the same order give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FORMAT = "fine-defocus packed 1"
LATENTS, IMAGES = "latents", "images"
#: Columns of the index that a `PackedSample` is made of.
SAMPLE_COLUMNS = (
    "key", "f_number", "focal_mm", "sensor_mm", "caption",
    "crop_top", "crop_left", "original_height", "original_width",
)  # fmt: skip
#: Columns of a kind of content, after its prefix.
PLACE = ("shard", "offset", "size", "sha256")
_NAMES_SHOWN = 3


class CorruptSample(ValueError):
    """One sample's bytes are not those that were packed; the caller counts it and takes another."""


@dataclass(frozen=True)
class Sample:
    """A photo's latent and what is known of the photo.

    key: unique in a set, of letters, digits, - and _. mean, std: of the VAE's latent, `(C, H, W)`.
    focal_mm, sensor_mm: mm, sensor_mm the length of sensor that the picture's width spans.
    crop: top and left, px; original: height and width before it, px (SDXL's micro-conditioning).
    """

    key: str
    mean: Tensor
    std: Tensor
    f_number: float
    focal_mm: float
    sensor_mm: float
    caption: str = ""
    crop: tuple[int, int] = (0, 0)
    original: tuple[int, int] = (1024, 1024)


@dataclass(frozen=True, kw_only=True)
class PackedSample(Sample):
    """A sample as it is read, its latent in fp16. index: within the set."""

    index: int


class PackedSet(Sequence[PackedSample]):
    """A packed set, read at random; safe in threads, after a fork and when pickled for workers.

    check: compare every sample's sha256 with the index (256 KiB: about 0.2 ms).
    identity: sha256 of the manifest, which holds the hashes of all else: the data's name in a checkpoint.

    Raises FileNotFoundError for a folder that is no set and for missing shards, which it names; ValueError
    for another version, another index or shards of other sizes. Indexing raises `CorruptSample`, and OSError
    for a shard that cannot be opened. POSIX only.
    """

    def __init__(self, path: str | Path, *, check: bool = True):
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        self.identity = file_hash(self.path / "manifest.json")
        self._check = check
        _check_files(self.path, self.manifest)
        self.table = _read_index(self.path, self.manifest)
        self._process = os.getpid()
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.table.num_rows

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(PackedSet, self.path, check=self._check), ()

    def __getitem__(self, index: int) -> PackedSample:
        index = self._index(index)
        row = {name: self.value(index, name) for name in SAMPLE_COLUMNS}
        crop = row.pop("crop_top"), row.pop("crop_left")
        original = row.pop("original_height"), row.pop("original_width")
        mean, std = self.latent(index)
        return PackedSample(mean=mean, std=std, crop=crop, original=original, index=index, **row)

    def value(self, index: int, column: str) -> Any:
        """One cell of the index."""
        return self.table[column][self._index(index)].as_py()

    def latent(self, index: int) -> tuple[Tensor, Tensor]:
        """Mean and std of the VAE's latent, fp16 `(C, H, W)` each. Raises `CorruptSample`."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            tensors = load(self.content(index, LATENTS))
            return tensors["mean"], tensors["std"]
        except (SafetensorError, KeyError) as error:
            raise CorruptSample(f"{self._named(index)} holds no latent ({error}).") from error

    def image(self, index: int) -> Tensor:
        """The picture, uint8 sRGB `(3, H, W)`. Raises `CorruptSample`; ValueError in a set without them."""
        import numpy as np
        from PIL import Image

        try:
            with Image.open(io.BytesIO(self.content(index, IMAGES))) as picture:
                pixels = np.array(picture.convert("RGB"))
        except OSError as error:
            raise CorruptSample(
                f"The picture of {self._named(index)} cannot be decoded ({error})."
            ) from error
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    def content(self, index: int, kind: str) -> bytes:
        """The stored bytes of one sample; kind: "latents" or "images"."""
        index = self._index(index)
        prefix = column_prefix(kind)
        if f"{prefix}_shard" not in self.table.column_names:
            raise ValueError(f'The set {self.path} holds no "{kind}": pack it with them.')
        shard, offset, size, wanted = (self.value(index, f"{prefix}_{part}") for part in PLACE)
        descriptor, place = self._descriptor(shard), f"{self._named(index)} in {shard}"
        try:
            content = os.pread(descriptor, size, offset)
        except OSError as error:
            raise CorruptSample(f"{place} cannot be read ({error}).") from error
        if len(content) != size:
            raise CorruptSample(f"{place} ends after {len(content)} of {size} bytes: copy the shard again.")
        if self._check and hashlib.sha256(content).digest() != wanted:
            raise CorruptSample(f"{place} is not what was packed: copy the shard again.")
        return content

    def close(self) -> None:
        """Close the shards; the next access opens them again."""
        with self._lock:
            while self._files:
                os.close(self._files.popitem()[1])

    def _descriptor(self, shard: str) -> int:
        if self._process != os.getpid():
            # a lock taken in the parent at the moment of the fork would never be released here
            self._lock, self._files, self._process = threading.Lock(), {}, os.getpid()
        with self._lock:
            if shard not in self._files:
                self._files[shard] = os.open(self.path / shard, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            return self._files[shard]

    def _index(self, index: int) -> int:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"Sample {index} of a set of {count}.")
        return int(index) % count

    def _named(self, index: int) -> str:
        return f"Sample {index} ({self.value(index, 'key')})"


@dataclass(frozen=True)
class Verification:
    """What `verify` found: samples and bytes looked at, and a sentence for every problem."""

    samples: int
    bytes: int
    problems: tuple[str, ...]


def verify(path: str | Path) -> Verification:
    """Hash every shard again; in one that changed, name the samples that did. Raises as `PackedSet` does."""
    packed = PackedSet(path)
    shards = packed.manifest["shards"]
    bad = {name for name in shards if file_hash(packed.path / name) != shards[name]["sha256"]}
    problems = [f"{name} is not what was packed: copy it again." for name in sorted(bad)]
    for kind in sorted({name.partition("/")[0] for name in bad}):
        names = packed.table[f"{column_prefix(kind)}_shard"].to_pylist()
        for index in [i for i, shard in enumerate(names) if shard in bad]:
            try:
                packed.content(index, kind)
            except CorruptSample as error:
                problems.append(str(error))
    packed.close()
    size = sum(shard["bytes"] for shard in shards.values()) + packed.manifest["index"]["bytes"]
    return Verification(len(packed), size, tuple(problems))


def read_manifest(root: Path) -> dict[str, Any]:
    """The set's manifest. Raises FileNotFoundError without one, ValueError for another version."""
    file = root / "manifest.json"
    if not file.is_file():
        raise FileNotFoundError(f"{root} is not a packed set: it has no manifest.json.")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): copy it again.") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise ValueError(f'{root} is written as "{found}" and this version reads "{FORMAT}": pack it again.')
    return manifest


def _read_index(root: Path, manifest: Mapping[str, Any]) -> Any:
    import pyarrow.parquet as pq

    file = root / "index.parquet"
    if file_hash(file) != manifest["index"]["sha256"]:
        raise ValueError(f"{file} is not the one that was packed: copy it again.")
    return pq.read_table(file).combine_chunks()


def _check_files(root: Path, manifest: Mapping[str, Any]) -> None:
    files = {"index.parquet": manifest["index"], **manifest["shards"]}
    missing = [name for name in files if not (root / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{root} lacks {len(missing)} of its {len(files)} files: {listed(missing)}. Copy them again."
        )
    for name, entry in files.items():
        size = (root / name).stat().st_size
        if size != entry["bytes"]:
            raise ValueError(f"{root / name} has {size} of {entry['bytes']} bytes: copy it again.")


def column_prefix(kind: str) -> str:
    """How the columns of a kind of content start."""
    return kind.removesuffix("s")


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def file_hash(path: Path) -> str:
    """sha256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
