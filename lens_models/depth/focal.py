"""The focal length of a picture in pixels, and where it is known from."""

from __future__ import annotations

import torch
from torch import Tensor

from ..camera import Camera, assumed_fx_px, view_degrees
from ..photo.exif import PhotoExif
from .estimator import DepthNetwork


def px_label(fx_px: Tensor) -> str:
    """A focal length, or a range of them, in words."""
    low, high = fx_px.min().item(), fx_px.max().item()
    return f"{low:.0f} px" if high - low < 0.5 else f"{low:.0f} to {high:.0f} px"


def known_focal(
    network: DepthNetwork, camera: Camera | None, exif: PhotoExif | None, width: int, height: int
) -> tuple[Tensor | None, str]:
    """The focal length of the pictures: the camera's, the photo's, the network's own or the usual guess.

    Returns it in px, `(1,)` or `(B,)`, None where the network estimates it, and a sentence where it is from.
    """
    unused = "" if network.uses_focal_length else "; this network does not use it"
    if camera is not None:
        fx = camera.framed(width, height).fx_px(width)
        fx = fx[:1] if (fx == fx[0]).all() else fx
        return fx, f"Focal length {px_label(fx)}, from the camera input{unused}."
    exif_fx = exif.fx_px(width, height) if exif else None
    if exif and exif_fx:
        fx = torch.tensor([exif_fx], dtype=torch.float64)
        equivalent = f"{exif.focal_35mm:g} mm equivalent" if exif.focal_35mm else f"{exif.focal_mm:g} mm"
        taken = ", ".join(filter(None, (exif.camera_name, equivalent)))
        return fx, f"Focal length {px_label(fx)}, from the photo's EXIF ({taken}){unused}."
    if network.estimates_focal_length:
        return None, ""
    if not network.uses_focal_length:
        return None, "Focal length unknown; this network does not use it."
    fx = torch.tensor([assumed_fx_px(width)], dtype=torch.float64)
    view = view_degrees(fx.item(), width)
    why = "The photo has no focal length in its EXIF" if exif else "No focal length given"
    assumed = f"{why}: {px_label(fx)} assumed, a 35 mm lens on full frame ({view:.0f}° across)."
    return fx, f"{assumed} Distances scale with it; connect Camera if you know the lens."
