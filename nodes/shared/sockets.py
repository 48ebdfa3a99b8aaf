"""The pack's socket types, and what else is accepted on them: converted here and nowhere else."""

from __future__ import annotations

from numbers import Real
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ...lens_models import Camera, Focus
from ...lens_models.depth.convert import Converted, DepthMap, from_geometry, is_geometry
from ...lens_models.depth.estimator import DepthNetwork
from ...lens_models.focus.predictor import FocusPredictor
from ...lens_models.shape import ApertureShape

DEPTH = io.Custom("DEPTH")
CAMERA = io.Custom("CAMERA")
FOCUS = io.Custom("FOCUS")
APERTURE_SHAPE = io.Custom("APERTURE_SHAPE")
DEPTH_MODEL = io.Custom("DEPTH_MODEL")
FOCUS_MODEL = io.Custom("FOCUS_MODEL")

#: ComfyUI's own geometry estimators.
MOGE_GEOMETRY = io.Custom("MOGE_GEOMETRY")
DA3_GEOMETRY = io.Custom("DA3_GEOMETRY")

#: What the depth and focus inputs take.
ANY_DEPTH: list[Any] = [DEPTH, MOGE_GEOMETRY, DA3_GEOMETRY]
ANY_FOCUS: list[Any] = [FOCUS, io.Float]


def as_camera(value: Any) -> Camera:
    """What arrived on a CAMERA socket. Raises ValueError for another pack's object."""
    if isinstance(value, Camera):
        return value
    raise _refused("camera", value, ", not a camera of Fine Defocus: connect Camera or Aperture Sweep.")


def as_focus(value: Any) -> Focus:
    """What arrived on a FOCUS or FLOAT (metres) socket. Raises ValueError for anything else."""
    if isinstance(value, Focus):
        return value
    if isinstance(value, Real) and not isinstance(value, bool):
        return Focus(float(value))
    nodes = "Focus Distance, another focus node of Fine Defocus, or a FLOAT in metres"
    raise _refused("focus", value, f": connect {nodes}.")


def focus_at(distance_m: Tensor, scale: Tensor | float = 1.0) -> Focus:
    """Focus at each of the distances `(B,)`, in plain numbers where there is one."""
    if len(distance_m) > 1:
        return Focus(distance_m, scale)
    return Focus(distance_m.item(), scale.item() if isinstance(scale, Tensor) else scale)


def as_depth(value: Any, camera: Camera | None = None) -> Converted:
    """What arrived on a DEPTH, MOGE_GEOMETRY or DA3_GEOMETRY socket, in metres.

    camera: took the picture; only Depth Anything 3's metric model needs it, and a guess is made without.
    Raises ValueError for anything else.
    """
    if isinstance(value, DepthMap):
        return Converted(value)
    if is_geometry(value):
        return from_geometry(value, fx_per_width=fx_per_width(camera, value))
    nodes = "Load Depth, Depth from Image (for a picture), MoGe or Depth Anything 3 geometry"
    raise _refused("depth", value, f", not depth in metres: connect {nodes}.")


def as_shape(value: Any) -> ApertureShape | None:
    """What arrived on an APERTURE_SHAPE socket; None, nothing connected, is the disc."""
    if value is None or isinstance(value, ApertureShape):
        return value
    raise _refused("shape", value, ", not an aperture shape of Fine Defocus: connect Aperture Shape.")


def as_depth_model(value: Any) -> ModelPatcher:
    """What arrived on a DEPTH_MODEL socket. Raises ValueError for anything else."""
    if isinstance(value, ModelPatcher) and isinstance(value.model, DepthNetwork):
        return value
    raise _refused("depth_model", value, ": connect Load Depth Model.")


def as_focus_model(value: Any) -> ModelPatcher:
    """What arrived on a FOCUS_MODEL socket. Raises ValueError for anything else."""
    if isinstance(value, ModelPatcher) and isinstance(value.model, FocusPredictor):
        return value
    raise _refused("focus_model", value, ": connect Load Focus Model.")


def fx_per_width(camera: Camera | None, geometry: Any) -> float | None:
    """Focal length over the width the geometry's picture spans; None without a camera."""
    if camera is None or not is_geometry(geometry):
        return None
    height, width = geometry["depth"].shape[-2:]
    return camera.framed(width, height).fx_px(width)[0].item() / width


def _refused(name: str, value: Any, remedy: str) -> ValueError:
    shape = getattr(value, "shape", None)
    kind = "nothing" if value is None else f"a {type(value).__name__}"
    kind += f" of shape {tuple(shape)}" if shape is not None else ""
    return ValueError(f"The {name} input got {kind}{remedy}")
