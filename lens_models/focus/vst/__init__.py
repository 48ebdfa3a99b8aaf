"""The visual saliency transformer: the network and its weights."""

from .network import VisualSaliencyTransformer, VSTConfig, load_vst

__all__ = ["VSTConfig", "VisualSaliencyTransformer", "load_vst"]
