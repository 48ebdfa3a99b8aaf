"""Optics and networks of Fine Defocus: pure torch, used by the ComfyUI nodes and by training alike."""

from .camera import Camera, Focus, coc_px
from .dr_bokeh import dr_bokeh_lens
from .layers.composite import composite
from .layers.layer import Layer
from .layers.layered_lens import LayeredLens
from .layers.split import split_layers
from .taf import taf_lens

__all__ = [
    "Camera",
    "Focus",
    "Layer",
    "LayeredLens",
    "coc_px",
    "composite",
    "dr_bokeh_lens",
    "split_layers",
    "taf_lens",
]
