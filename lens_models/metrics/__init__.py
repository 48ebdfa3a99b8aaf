"""The paper's metrics in one place, for the nodes and for training alike."""

from .consistency import Consistency, Segmenter, content_consistency, label_codes
from .fid import FeatureStatistics, frechet_distance
from .inception import FIDInception, load_inception
from .lpips import LPIPS, adjacent_distances, load_lpips
from .monotonicity import Monotonicity, blur_monotonicity, energy

__all__ = [
    "LPIPS",
    "Consistency",
    "FIDInception",
    "FeatureStatistics",
    "Monotonicity",
    "Segmenter",
    "adjacent_distances",
    "blur_monotonicity",
    "content_consistency",
    "energy",
    "frechet_distance",
    "label_codes",
    "load_inception",
    "load_lpips",
]
