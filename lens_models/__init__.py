"""Optics and networks of Fine Defocus: pure torch, used by the ComfyUI nodes and by training alike."""

from .camera import Camera, Focus, coc_px
from .taf import taf_lens

__all__ = ["Camera", "Focus", "coc_px", "taf_lens"]
