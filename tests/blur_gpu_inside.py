"""Run in its own process with TRITON_INTERPRET=1: the GPU's kernels on the CPU against the definition."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

assert os.environ["TRITON_INTERPRET"] == "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from lens_models.blur import reference, triton_engine  # noqa: E402

torch.set_num_threads(1)
#: batch, channels, height, width, largest radius
CASES = {
    "odd size": (1, 3, 13, 37, 4.0),
    "batch, RGBA": (2, 4, 9, 40, 2.5),
    "beyond the border": (1, 1, 7, 9, 9.0),
    "below a pixel": (1, 3, 8, 33, 0.6),
    "one pixel": (1, 3, 1, 1, 3.0),
    "runs": (2, 3, 11, 37, 6.5),
    "runs, near the border": (1, 4, 5, 35, 7.0),
}
#: Of the largest radius, where runs of a row are to be summed: the smallest one; and no pixel is sharp.
NARROW = 0.85
triton_engine.RUNS_FROM_PX = 6  # in the interpreter a disc of the real 12 px takes minutes


def largest(difference: torch.Tensor, known: torch.Tensor) -> float:
    return (difference.abs().max() / known.abs().max().clamp_min(1e-30)).item()


def compare(kind: str, name: str) -> dict[str, float]:
    """Relative errors of value and gradients against float64, and whether a second run is the same."""
    batch, channels, height, width, radius = CASES[name]
    torch.manual_seed(len(name))
    image, weight = torch.rand(2, batch, channels, height, width, dtype=torch.float64)
    radii = torch.rand(batch, height, width, dtype=torch.float64)
    if name.startswith("runs"):
        radii = radius * (NARROW + (1.0 - NARROW) * radii)
    else:
        radii = radii * radius
        radii.view(-1)[::5] = 0.0  # sharp pixels among blurred ones
    radii = radii.float().double()
    found = {}
    runs = []
    for engine, dtype in (
        (reference, torch.float64),
        (triton_engine, torch.float32),
        (triton_engine, torch.float32),
    ):
        x, r = (part.detach().to(dtype, copy=True).requires_grad_() for part in (image.float(), radii))
        out = getattr(engine, kind)(x, r)
        (out * weight.to(dtype)).sum().backward()
        runs.append([out.detach(), x.grad, r.grad])
    known, once, twice = runs
    # at r = 0 the derivative by the radius is 0, which one-sided differences of the definition give as well
    for what, a, b, c in zip(("value", "by picture", "by radius"), known, once, twice, strict=True):
        found[what] = largest(a - b.double(), a)
        found[f"{what}, again"] = float(not torch.equal(b, c))
    return found


def shared_picture() -> float:
    """One picture for three apertures is the same as three copies of it."""
    torch.manual_seed(0)
    image, radii = torch.rand(1, 3, 10, 35), torch.rand(3, 10, 35) * 3.0
    image.requires_grad_()
    out = triton_engine.gather(image, radii)
    out.square().sum().backward()
    copies = image.detach().expand(3, -1, -1, -1).clone().requires_grad_()
    other = triton_engine.gather(copies, radii)
    other.square().sum().backward()
    return max(
        largest(out - other, other), largest(image.grad - copies.grad.sum(0, keepdim=True), image.grad)
    )


def beside_a_highlight(kind: str) -> float:
    """The largest error in the dark, as a share of the darkness, in rows that begin with a bright light."""
    torch.manual_seed(0)
    image = 0.01 + 0.01 * torch.rand(1, 3, 9, 40, dtype=torch.float64)
    image[..., 0] = 30_000.0
    radii = torch.full((1, 9, 40), 6.0, dtype=torch.float64)
    known = getattr(reference, kind)(image, radii)[..., 10:]
    return largest(getattr(triton_engine, kind)(image.float(), radii.float())[..., 10:] - known, known)


if __name__ == "__main__":
    told = {f"{kind}, {name}": compare(kind, name) for kind in ("gather", "scatter") for name in CASES}
    told["shared picture"] = {"value": shared_picture()}
    told["beside a highlight"] = {kind: beside_a_highlight(kind) for kind in ("gather", "scatter")}
    print(json.dumps(told))
