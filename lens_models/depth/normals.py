"""Surface normals: out of depth, and as a picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def normals_from_depth(depth_m: Tensor, fx_px: Tensor) -> Tensor:
    """Unit normals of the surfaces in a depth map, towards the camera.

    depth_m: `(B, H, W)` metres, > 0, +inf = sky. fx_px: `(B,)` or `(1,)` focal length, px.
    Returns `(B, 3, H, W)`: x right, y down, z away, so that a wall before the camera is (0, 0, -1); so is
    sky. The principal point is the middle of the picture.
    """
    height, width = depth_m.shape[-2:]
    sky = torch.isinf(depth_m)
    z = torch.where(sky, torch.zeros_like(depth_m), depth_m)
    fx = fx_px.to(z).reshape(-1, 1, 1)
    x = (torch.arange(width, device=z.device, dtype=z.dtype) - (width - 1) / 2.0) / fx * z
    y = (torch.arange(height, device=z.device, dtype=z.dtype)[:, None] - (height - 1) / 2.0) / fx * z
    points = F.pad(torch.stack([x, y, z], dim=1), (1, 1, 1, 1), mode="replicate")
    right = points[..., 1:-1, 2:] - points[..., 1:-1, :-2]
    down = points[..., 2:, 1:-1] - points[..., :-2, 1:-1]
    normal = F.normalize(torch.linalg.cross(down, right, dim=1), dim=1)
    facing = torch.tensor([0.0, 0.0, -1.0], device=z.device, dtype=z.dtype).view(1, 3, 1, 1)
    flat = sky[:, None] | (normal.square().sum(dim=1, keepdim=True) < 0.5)
    return torch.where(flat, facing, normal)


def normal_picture(normal: Tensor) -> Tensor:
    """Normals as the usual normal map: red to the right, green up, blue towards the camera.

    normal: `(B, 3, H, W)` unit vectors, x right, y down, z away.
    Returns `(B, H, W, 3)`, 0..1.
    """
    signs = normal.new_tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    return ((normal * signs + 1.0) / 2.0).clamp(0.0, 1.0).movedim(1, -1)
