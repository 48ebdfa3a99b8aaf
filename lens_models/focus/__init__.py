"""Where a photographer would focus: saliency of picture and depth, and the focus distance out of it."""

from .distance import FoundDistance, focus_distance_m, focus_from_mask
from .guess import contrast_guess
from .predictor import FocusPredictor, Prediction, TokenSource, load_predictor, save_predictor
from .vst.network import VisualSaliencyTransformer, VSTConfig, load_vst

__all__ = [
    "FocusPredictor",
    "FoundDistance",
    "Prediction",
    "TokenSource",
    "VSTConfig",
    "VisualSaliencyTransformer",
    "contrast_guess",
    "focus_distance_m",
    "focus_from_mask",
    "load_predictor",
    "load_vst",
    "save_predictor",
]
