"""Metric3Dv2: the network, its weights, and pictures on their way in and out of it."""

from .config import PUBLISHED, Metric3DConfig
from .network import Metric3Dv2, load_metric3d

__all__ = ["PUBLISHED", "Metric3DConfig", "Metric3Dv2", "load_metric3d"]
