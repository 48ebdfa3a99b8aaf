"""The blur engines against a naive torch loop, the float64 definition and the machine's own bounds.

    python benchmarks/blur.py                  # 1024², R = 8, 16, 32, 64, one thread
    python benchmarks/blur.py --threads 2 --sizes 2048 --radii 32

The naive loop is what one writes first: for every offset of the window a weight map and a shifted copy.
From R = 32 on it runs a stated part of its offsets and is scaled up. The floor is what a blur by spans needs
at least (`measuring.Machine`): the taps of every disc's soft rim and two look-ups per row of it at the rate
of this machine's matrix product, and one pass over the data at that of a copy. Memory is the peak of a fresh
process beside picture and radii, with the result, after a small picture. The error is the largest difference
from the definition on 16 rows, of the picture's maximum. Nothing is asserted; the tests check numbers.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from measuring import Machine, best_of, definition, definition_error, extra_mb, processor
from torch import Tensor

from lens_models import Camera, Focus, blur, taf_lens

#: The row of forward and backward, which the stack alone has on a CPU.
BOTH_WAYS = "stack, both ways"


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


def forward_backward(image: Tensor, radius: Tensor) -> Tensor:
    image, radius = image.clone().requires_grad_(), radius.clone().requires_grad_()
    blur.gather(image, radius, engine="stack").sum().backward()
    return image.grad


def work_of(row: str, image: Tensor, radius: Tensor) -> Callable[[], Tensor]:
    """What a row of the table times: an engine, or with BOTH_WAYS its two passes."""
    if row == BOTH_WAYS:
        return lambda: forward_backward(image, radius)
    return lambda: blur.gather(image, radius, engine=row)


def sweep_ratio(size: int, radius_px: float, engine: str, runs: int) -> float:
    """Eight full stops of one picture against its widest stop alone, through `taf_lens`."""
    image, _ = scene(size, radius_px)
    depth = torch.linspace(1.0, 20.0, size)[None, :, None].expand(1, size, size).contiguous()
    focal_mm, focus = 50.0, Focus(2.0)
    widest = focal_mm**2 / (2 * radius_px * (2000 - focal_mm)) * size / 36
    stops = torch.tensor([widest * 2 ** (k / 2) for k in range(8)])
    one = best_of(runs, lambda: taf_lens(image, depth, focus, Camera(stops[:1], focal_mm), engine=engine))
    return best_of(runs, lambda: taf_lens(image, depth, focus, Camera(stops, focal_mm), engine=engine)) / one


def memory_mb(row: str, size: int, radius_px: float, threads: int) -> float:
    """Extra memory of a row, from a process of its own."""
    command = [sys.executable, __file__, "--memory-of", row, "--threads", str(threads)]
    command += ["--sizes", str(size), "--radii", str(radius_px)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode:
        sys.exit(told.stderr)
    return float(told.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--radii", type=float, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory-of", help="this process is the one whose memory is measured, for one row")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        work_of(arguments.memory_of, *scene(256, 8.0))()  # compiles
        work = work_of(arguments.memory_of, *scene(arguments.sizes[0], arguments.radii[0]))
        print(f"{extra_mb(work)[0]:.0f}")
        return

    engines = ["stack"]
    try:
        import numba  # noqa: F401

        engines.append("cpu")
    except ImportError:
        print("numba is not installed: its engine is left out")
    machine = Machine()
    print(f"{processor()}, {arguments.threads} threads, torch {torch.__version__}, best of {arguments.runs}")
    print(f"{machine.multiply_adds / 1e9:.0f} G multiply-adds/s, {machine.bytes / 1e9:.1f} GB/s\n")
    print("| size | R | engine | ms | naive / it | it / floor | memory, MB | error |")
    print("|---|---|---|---|---|---|---|---|")
    for size in arguments.sizes:
        for radius_px in arguments.radii:
            image, radius = scene(size, radius_px)
            rows = slice(size // 8, size // 8 + 16)
            exact, floor = definition(image, radius, rows), machine.floor(image, radius)
            share = min(1.0, (16 / radius_px) ** 2 * (1024 / size) ** 2)
            slow, place = naive(image, radius, share), f"| {size}² | {radius_px:g} |"
            told = "naive loop" if share == 1 else f"naive loop, from {share:.0%}"
            print(f"{place} {told} | {1e3 * slow:.0f} | 1 | {slow / floor:.0f} | | |", flush=True)
            for row in (*engines, BOTH_WAYS):
                work = work_of(row, image, radius)
                made = work()  # warms plans and compilation
                seconds = best_of(arguments.runs, work)
                error = f"{definition_error(made, image, rows, exact):.1e}" if row in engines else ""
                held = memory_mb(row, size, radius_px, arguments.threads)
                ratios = f"{slow / seconds:.0f} | {seconds / floor:.1f}"
                print(f"{place} {row} | {1e3 * seconds:.0f} | {ratios} | {held:.0f} | {error} |", flush=True)
        print()
        for engine in engines:
            ratio = sweep_ratio(size, 32, engine, arguments.runs)
            print(
                f"| {size}² | 32 | {engine}: eight full stops / one stop | {ratio:.2f} | | | | |", flush=True
            )


if __name__ == "__main__":
    main()
