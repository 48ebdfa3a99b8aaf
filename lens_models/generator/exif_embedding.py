"""The camera as numbers for a diffusion network: appendix F.3 of the paper, row 4 of its Table 1.

f-number and focal length each become a vector of sines and cosines; both together go through two linear
layers, and the result is added to the time embedding. The paper does not say how the two numbers are scaled:
here they enter as log2 N (one stop is 1/2) and ln(f / 24 mm).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..weights import load_strict, read_part

#: How the tensors are called in a file: in one of their own or among a generator's.
PREFIX = "exif_embedding."
INPUTS = "log2(f_number), ln(focal_mm / 24)"
REFERENCE_FOCAL_MM = 24.0
_LONGEST_PERIOD = 10_000.0


def sinusoid(value: Tensor, channels: int) -> Tensor:
    """cos and sin of value · 10000^(−i / (channels / 2)): `(B,)` -> `(B, channels)`, cosines first."""
    half = channels // 2
    falling = torch.arange(half, dtype=value.dtype, device=value.device) / half
    angle = value[:, None] * torch.exp(-math.log(_LONGEST_PERIOD) * falling)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class ExifEmbedding(nn.Module):
    """f-number and focal length -> what is added to the time embedding. Fresh, it adds nothing.

    width: of the time embedding, 1280 for SDXL. channels: sines and cosines per number.
    """

    def __init__(self, width: int = 1280, channels: int = 256):
        super().__init__()
        self.channels = channels
        self.linear_1 = nn.Linear(2 * channels, width)
        self.linear_2 = nn.Linear(width, width)
        nn.init.zeros_(self.linear_2.weight)
        nn.init.zeros_(self.linear_2.bias)

    @property
    def width(self) -> int:
        """Of the time embedding this one is added to."""
        return self.linear_2.out_features

    def forward(self, f_number: float | Tensor, focal_mm: float | Tensor) -> Tensor:
        """Offset of the time embedding, `(B, width)`.

        f_number; focal_mm: focal length in mm; both a number or `(B,)`, 1 goes with B.
        """
        weight = self.linear_1.weight
        n, f = (torch.as_tensor(v, device=weight.device).to(weight).reshape(-1) for v in (f_number, focal_mm))
        n, f = torch.broadcast_tensors(n, f)
        both = [sinusoid(v, self.channels) for v in (n.log2(), (f / REFERENCE_FOCAL_MM).log())]
        return self.linear_2(F.silu(self.linear_1(torch.cat(both, dim=1))))


@contextmanager
def camera_conditioned(
    unet: nn.Module, head: ExifEmbedding, f_number: float | Tensor, focal_mm: float | Tensor
) -> Iterator[None]:
    """A diffusers UNet sees this camera inside the `with`; gradients reach the head.

    unet: its `time_embedding` gives `(B, width)`, where B may be several batches one after the other, such
    as conditional and unconditional rows. f_number, focal_mm: as for `ExifEmbedding.forward`.
    """

    def add(_module: nn.Module, _inputs: tuple, embedding: Tensor) -> Tensor:
        return embedding + rows(head(f_number, focal_mm), embedding.shape[0]).to(embedding)

    handle = unet.get_submodule("time_embedding").register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def rows(offset: Tensor, count: int) -> Tensor:
    """`(B, width)` repeated for `count` rows of whole batches, one after the other."""
    if count % offset.shape[0]:
        raise ValueError(
            f"{offset.shape[0]} cameras do not go with {count} pictures: use 1 camera or one for each "
            "picture."
        )
    return offset.repeat(count // offset.shape[0], 1)


def head_tensors(head: ExifEmbedding) -> dict[str, Tensor]:
    """The head's tensors by the names they have in a file, to be written among a generator's."""
    return {PREFIX + key: value.detach().cpu().contiguous() for key, value in head.state_dict().items()}


def load_exif_embedding(path: str | Path) -> ExifEmbedding | None:
    """The head in a .safetensors file, float32 on the CPU; None where the file has none.

    Only the head's tensors are read, so the file may be a whole generator.
    Raises ValueError, in a sentence, for a file that cannot be read or a head of another kind.
    """
    path = Path(path)
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    tensors, metadata, name = read_part(path, PREFIX)
    if not tensors:
        return None
    inputs = metadata.get("exif_inputs", INPUTS)
    if inputs != INPUTS:
        raise ValueError(
            f"The EXIF head of {name} takes {inputs}; this version knows {INPUTS}: update Fine Defocus."
        )
    return exif_embedding_from(tensors, name)


def exif_embedding_from(tensors: Mapping[str, Any], name: str) -> ExifEmbedding:
    """A head from its tensors by their names without prefix; sizes are taken from their shapes."""
    if "linear_1.weight" not in tensors:
        raise ValueError(f"The EXIF head of {name} is incomplete: it has no linear_1.weight.")
    width, inputs = tensors["linear_1.weight"].shape
    head = ExifEmbedding(width, inputs // 2)
    own = {key: value.to(torch.float32, copy=True) for key, value in tensors.items()}
    load_strict(head, own, f"The EXIF head of {name}")
    return head.eval().requires_grad_(False)
