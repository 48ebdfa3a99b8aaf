"""Checks of pictures and of what goes with them, and the way out to ComfyUI."""

from __future__ import annotations

import comfy.model_management as mm
from torch import Tensor

ASPECT_TOLERANCE = 0.02


def picture_size(image: Tensor) -> tuple[int, int]:
    """Height and width of an IMAGE, px. Raises ValueError when there is no picture in it."""
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(f"There is no picture: the image input got a batch of shape {tuple(image.shape)}.")
    height, width = image.shape[1:3]
    return height, width


def to_host(image: Tensor) -> Tensor:
    """A picture or mask where ComfyUI keeps its own, and as precise."""
    return image.to(mm.intermediate_device(), mm.intermediate_dtype())


def shape_warning(name: str, own: tuple[int, int], picture: tuple[int, int], then: str) -> list[str]:
    """A sentence where something is not of the picture's shape; both sizes are height and width, px.

    then: the end of the sentence, from its comma or full stop on.
    """
    (own_height, own_width), (height, width) = own, picture
    if abs(own_width * height / (own_height * width) - 1.0) <= ASPECT_TOLERANCE:
        return []
    return [
        f"The {name} is {own_width} × {own_height} px and the picture {width} × {height} px: they have "
        f"different shapes{then}"
    ]
