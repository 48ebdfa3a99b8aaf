"""Where a photographer would focus: saliency of picture and depth, and the focus distance out of it."""

from .predictor import FocusPredictor, Prediction, TokenSource, load_predictor, save_predictor
from .saliency import (
    FoundDistance,
    MaskSaliency,
    PredictorSaliency,
    SaliencySource,
    contrast_guess,
    focus_distance_m,
    focus_from_mask,
)
from .vst.network import VisualSaliencyTransformer, VSTConfig, load_vst

__all__ = [
    "FocusPredictor",
    "FoundDistance",
    "MaskSaliency",
    "Prediction",
    "PredictorSaliency",
    "SaliencySource",
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
