"""The training set on disk, and the order in which it is read."""

from .pack import PackedWriter, Record
from .packed import CorruptSample, PackedSample, PackedSet, Verification, verify
from .sampler import Batches, EpochSampler

__all__ = [
    "Batches",
    "CorruptSample",
    "EpochSampler",
    "PackedSample",
    "PackedSet",
    "PackedWriter",
    "Record",
    "Verification",
    "verify",
]
