"""The paper's metrics in one place, for the nodes and for training alike."""

from .consistency import Consistency, Segmenter, content_consistency, label_codes
from .lpips import LPIPS, adjacent_distances, load_lpips
from .monotonicity import Monotonicity, blur_monotonicity, energy

__all__ = [
    "LPIPS",
    "Consistency",
    "Monotonicity",
    "Segmenter",
    "adjacent_distances",
    "blur_monotonicity",
    "content_consistency",
    "energy",
    "label_codes",
    "load_lpips",
]
