"""One way to ask every depth network, and what to do with a clip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..camera import assumed_fx_px
from .hugging_face import KINDS, MetricModel, load_metric_model
from .metric3d.config import PUBLISHED as METRIC3D_SIZES
from .metric3d.network import Metric3Dv2, load_metric3d
from .metric3d.preprocess import AUTO, Letterbox, guided_upsampled, opaque
from .normals import normals_from_depth

DepthNetwork = Metric3Dv2 | MetricModel
#: Bytes that a network needs per pixel it sees and channel of its transformer, and that the maps need per
#: pixel of the picture: twice what was measured in float32.
_BYTES_PER_CHANNEL, _BYTES_PER_PIXEL, _BYTES_GUIDED = 4, 160, 480
#: A clip's scale is measured on a grid with this many points a side.
_GRID = 128


@dataclass(frozen=True, eq=False)
class Measured:
    """What a network measured in a batch of pictures, at their size. float32.

    depth_m: `(B, H, W)` metres, > 0, +inf = sky if asked for.
    confidence: `(B, H, W)` 0..1; 1 everywhere from networks that give none.
    normal: `(B, 3, H, W)` unit vectors: x right, y down, z away; out of the depth where a network gives none.
    fx_px: `(B,)` focal length in px that the network itself found, else None.
    """

    depth_m: Tensor
    confidence: Tensor
    normal: Tensor
    fx_px: Tensor | None = None


def load_network(path: str | Path) -> DepthNetwork:
    """A depth network from a file (Metric3Dv2) or a transformers folder, on the CPU.

    Raises ValueError, FileNotFoundError or ImportError with a sentence for the artist.
    """
    path = Path(path)
    return load_metric_model(path) if path.is_dir() else load_metric3d(path)


def title(network: DepthNetwork) -> str:
    """What a network is called, with its size, such as "Metric3Dv2 ViT-L, 412 M weights"."""
    if isinstance(network, MetricModel):
        name = KINDS[network.kind]
    else:
        sizes = {"small": "ViT-S", "large": "ViT-L", "giant2": "ViT-g2"}
        same = [n for n, config in METRIC3D_SIZES.items() if config == network.config]
        name = f"Metric3Dv2 {sizes[same[0]] if same else f'{network.config.embed_dim} wide'}"
    return f"{name}, {sum(p.numel() for p in network.parameters()) / 1e6:,.3g} M weights"


def good_precisions(network: DepthNetwork) -> tuple[torch.dtype, ...]:
    """Precisions that leave the distances smooth, best first.

    The transformers networks end in the precision they run in: bfloat16 would leave 256 distances per octave,
    and ZoeDepth's bins need float32.
    """
    if not isinstance(network, MetricModel):
        return torch.float16, torch.bfloat16, torch.float32
    return (torch.float32,) if network.kind == "zoedepth" else (torch.float16, torch.float32)


def half_precision_part(network: DepthNetwork) -> nn.Module:
    """The part that does most of the work and may run in half precision without coarser distances."""
    return network if isinstance(network, MetricModel) else network.encoder


def working_bytes(
    network: DepthNetwork, height: int, width: int, canvas: str, *, guided: bool = False
) -> int:
    """Memory beyond the weights that measuring one picture needs at most, about, in float32."""
    if isinstance(network, MetricModel):
        pixels, channels = network.input_pixels(height, width), network.width
    else:
        box = Letterbox.fit(height, width, canvas)
        pixels, channels = box.canvas_height * box.canvas_width, network.config.embed_dim
    per_pixel = _BYTES_PER_PIXEL + (_BYTES_GUIDED if guided else 0)
    return pixels * channels * _BYTES_PER_CHANNEL + height * width * per_pixel


def measure(
    network: DepthNetwork,
    srgb: Tensor,
    fx_px: Tensor | None,
    *,
    canvas: str = AUTO,
    sky_m: float | None = None,
    guided: bool = False,
) -> Measured:
    """Depth, confidence and normals of pictures.

    network: from `load_network`. srgb: `(B, C, H, W)` 0..1, C = 1, 3 or 4 (straight alpha), on its device.
    fx_px: `(B,)` or `(1,)` focal length of these pictures, px; None only if `estimates_focal_length`, or not
        `uses_focal_length`. One picture goes with several focal lengths.
    canvas: size Metric3Dv2 sees, see `preprocess.CANVASES`; the others have their own.
    sky_m: depth at or beyond this many metres becomes +inf; None keeps it.
    guided: sharpen the edges of depth along those of the picture; needs kornia.
    Raises ValueError for a picture, focal length or canvas that cannot be used.
    """
    if not isinstance(network, MetricModel):
        if fx_px is None:
            raise ValueError("Metric3Dv2 needs the focal length of the picture.")
        maps = network.estimate_maps(srgb, fx_px, canvas=canvas, sky_m=sky_m, guided=guided)
        confidence, normal = cast(Tensor, maps.confidence), cast(Tensor, maps.normal)  # both asked for
        return Measured(maps.depth_m, confidence.clamp(0.0, 1.0), normal)
    picture = opaque(srgb)
    height, width = picture.shape[-2:]
    if fx_px is not None and fx_px.numel() > picture.shape[0]:
        picture = picture.expand(fx_px.numel(), -1, -1, -1)
    depth, own_fx = network.estimate_metres(picture, fx_px)
    if guided:
        scale = math.sqrt(network.input_pixels(height, width) / (height * width))
        depth = guided_upsampled(depth[:, None], picture, scale)[:, 0]
    if sky_m is not None:
        depth = torch.where(depth >= sky_m, torch.full_like(depth, torch.inf), depth)
    known = own_fx if fx_px is None else fx_px
    fx = torch.tensor([assumed_fx_px(width)]) if known is None else known
    return Measured(depth, torch.ones_like(depth), normals_from_depth(depth, fx), own_fx)


def steady_factors(depth_m: Tensor) -> Tensor:
    """What every frame of a clip must be multiplied with so that its distances do not pump, `(B,)` float32.

    Networks judge the scale of every frame anew. At each point of a coarse grid the clip's median distance is
    taken; a frame's factor is the median, over the grid, of that distance over its own. It is meant for a
    camera that stands: what stays where it is decides, as long as it is more than half of the picture.

    depth_m: `(B, H, W)` metres, +inf = sky, which does not count.
    """
    frames, height, width = depth_m.shape
    if frames == 1:
        return torch.ones(1, device=depth_m.device)
    size = min(height, _GRID), min(width, _GRID)
    coarse = F.interpolate(depth_m[:, None], size=size, mode="nearest-exact").reshape(frames, -1)
    log_depth = torch.where(torch.isfinite(coarse), coarse.log(), torch.full_like(coarse, torch.nan))
    usual = log_depth.nanmedian(dim=0, keepdim=True).values
    return (usual - log_depth).nanmedian(dim=1).values.nan_to_num(0.0).exp()
