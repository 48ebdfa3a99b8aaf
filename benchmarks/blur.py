"""Time of the blur engines against a naive torch loop, in one process and one run.

    python benchmarks/blur.py                  # 1024², R = 8, 16, 32, 64, one thread
    python benchmarks/blur.py --threads 2 --sizes 2048 --radii 32

The naive loop is what one writes first: for every offset of the window a weight map and a shifted copy.
From R = 32 on it runs a stated part of its offsets and is scaled up. Nothing is asserted here; the
tests check numbers, this prints ratios.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor

from lens_models import Camera, Focus, blur, taf_lens

ENGINES = ("stack", "cpu")


def scene(size: int, radius_px: float) -> tuple[Tensor, Tensor]:
    """Texture, a checkerboard and highlights; blur radii of a receding ramp with a sharp object on it."""
    random = torch.Generator().manual_seed(0)
    spectrum = torch.fft.rfft2(torch.randn(3, size, size, generator=random))
    frequency = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None])
    texture = torch.fft.irfft2(spectrum / frequency.clamp_min(1 / size), s=(size, size))
    image = 0.5 + 0.15 * texture / texture.std()
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    image = torch.where((x > size * 3 // 4) & ((x // 16 + y // 16) % 2 == 0), 0.05, image).clamp_min(0)
    for py, px in torch.randint(0, size - 2, (40, 2), generator=random).tolist():
        image[:, py : py + 2, px : px + 2] = 8.0
    radius = radius_px * (1 - y / size)
    radius[((x - size / 2) ** 2 + (y - size / 2) ** 2) < (size / 4) ** 2] = 0.0
    return image[None], radius[None].contiguous()


def naive(image: Tensor, radius: Tensor, share: float) -> float:
    """Seconds of the naive loop; `share` of its offsets is run and scaled up."""
    reach = int(radius.max().ceil())
    height, width = image.shape[-2:]
    padded = F.pad(image, (reach,) * 4, mode="replicate")
    out, weights = torch.zeros_like(image), torch.zeros_like(radius)
    offsets = [(dy, dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
    run = offsets[:: max(1, round(1 / share))]
    start = time.perf_counter()
    for dy, dx in run:
        weight = (radius + 0.5 - (dx * dx + dy * dy) ** 0.5).clamp(0, 1)
        out = out + weight[:, None] * padded[..., reach + dy :, reach + dx :][..., :height, :width]
        weights = weights + weight
    return (time.perf_counter() - start) * len(offsets) / len(run)


def best_of(runs: int, work) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def forward_backward(image: Tensor, radius: Tensor) -> None:
    image, radius = image.clone().requires_grad_(), radius.clone().requires_grad_()
    blur.gather(image, radius, engine="stack").sum().backward()


def sweep_ratio(size: int, radius_px: float, engine: str, runs: int) -> float:
    """Eight full stops of one picture against its widest stop alone, through `taf_lens`."""
    image, _ = scene(size, radius_px)
    depth = torch.linspace(1.0, 20.0, size)[None, :, None].expand(1, size, size).contiguous()
    focal_mm, focus = 50.0, Focus(2.0)
    widest = focal_mm**2 / (2 * radius_px * (2000 - focal_mm)) * size / 36
    stops = torch.tensor([widest * 2 ** (k / 2) for k in range(8)])
    one = best_of(runs, lambda: taf_lens(image, depth, focus, Camera(stops[:1], focal_mm), engine=engine))
    return best_of(runs, lambda: taf_lens(image, depth, focus, Camera(stops, focal_mm), engine=engine)) / one


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--radii", type=float, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        import numba

        numba.set_num_threads(arguments.threads)
        engines = ENGINES
    except ImportError:
        engines = ("stack",)

    print(f"{arguments.threads} threads, best of {arguments.runs}; x = naive over engine")
    for size in arguments.sizes:
        for radius_px in arguments.radii:
            image, radius = scene(size, radius_px)
            share = min(1.0, (16 / radius_px) ** 2 * (1024 / size) ** 2)
            slow = naive(image, radius, share)
            line = f"{size}² R={radius_px:g}: naive {slow:.2f} s" + (
                f" (from {share:.0%})" if share < 1 else ""
            )
            pictures = {}
            for engine in engines:
                pictures[engine] = blur.gather(image, radius, engine=engine)  # warms plans and compilation
                seconds = best_of(arguments.runs, lambda: blur.gather(image, radius, engine=engine))  # noqa: B023
                line += f" | {engine} {seconds:.3f} s {slow / seconds:.0f}x"
            both = best_of(max(1, arguments.runs // 2), lambda: forward_backward(image, radius))  # noqa: B023
            line += f" | stack forward + backward {both:.3f} s"
            if len(pictures) == 2:
                difference = (pictures["stack"] - pictures["cpu"]).abs().max().item()
                line += f" | engines differ by {difference / image.max().item():.1e} of the maximum"
            print(line, flush=True)
        for engine in engines:
            ratio = sweep_ratio(size, 32, engine, arguments.runs)
            print(f"{size}² R=32: eight full stops / one stop, {engine}: {ratio:.2f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
