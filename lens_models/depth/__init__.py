"""Depth in metres: reading it from files, and turning every other convention into it once."""

from .convert import DepthMap

__all__ = ["DepthMap"]
