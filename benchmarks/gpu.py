"""The blur and both lenses on a GPU: Triton's kernels beside the level stack.

    python benchmarks/gpu.py                                  # the card that torch finds
    python benchmarks/gpu.py --device cpu --size 128 --runs 1    # does this script run; its times say nothing

Milliseconds are the best of some runs, measured with the device's own events; memory is torch's peak beside
what was held before. The floor is what the kernels' instructions would take at the rate that is given for
the card: those for the taps at every disc's soft rim and for the running sums of each of its rows, as counted
in the code compiled for sm_90. The error is the largest difference from the float64 definition on 16 rows, of
the picture's maximum. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from blur import scene
from lenses import scene_at
from measuring import definition, definition_error, rims
from torch import Tensor

from lens_models import Camera, blur, dr_bokeh_lens, taf_lens

STOPS = 2.0 ** (torch.arange(8) / 2.0)
#: 53 instructions for two mirrored taps, and the look-ups of a row in three channels' running sums.
INSTRUCTIONS_PER_TAP, INSTRUCTIONS_PER_ROW = 26.5, 45.0


class Clock:
    """Best of some runs on a device, and the most memory that one takes."""

    def __init__(self, device: torch.device, runs: int) -> None:
        self.cuda, self.runs = device.type == "cuda", runs

    def __call__(self, work: Callable[[], object]) -> tuple[float, float]:
        """(ms, MB); MB is 0 on a CPU, where torch does not count."""
        work()  # compiles, and makes plans
        best, held = math.inf, 0
        for _ in range(self.runs):
            if not self.cuda:
                begin = time.perf_counter()
                work()
                best = min(best, 1e3 * (time.perf_counter() - begin))
                continue
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            work()
            last.record()
            torch.cuda.synchronize()
            best = min(best, first.elapsed_time(last))
        return best, (torch.cuda.max_memory_allocated() - held) / 1e6 if self.cuda else 0.0


def both_ways(image: Tensor, radius: Tensor, engine: str) -> None:
    image, radius = image.clone().requires_grad_(), radius.clone().requires_grad_()
    blur.gather(image, radius, engine=engine).sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--radius", type=float, default=64.0, help="largest blur radius, px")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--peak", type=float, default=29.6, help="10^12 instructions/s; default an H100's")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no GPU that torch can use: nothing was measured.")
    engines = ("gpu", "stack") if device.type == "cuda" else ("stack",)
    clock, size, radius_px = Clock(device, arguments.runs), arguments.size, arguments.radius
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {size}², blur radii up to {radius_px:g} px")

    image, radius = (part.to(device) for part in scene(size, radius_px))
    taps, lines = rims(radius)
    work = taps * INSTRUCTIONS_PER_TAP + lines * INSTRUCTIONS_PER_ROW
    floor = work / (arguments.peak * 1e12) * 1e3
    rows = slice(size // 8, size // 8 + 16)
    exact = definition(image.cpu(), radius.cpu(), rows)
    for engine in engines:
        ms, megabytes = clock(lambda: blur.gather(image, radius, engine=engine))  # noqa: B023
        made = blur.gather(image, radius, engine=engine).cpu()
        error = definition_error(made, image.cpu(), rows, exact)
        ratio = f"{ms / floor:.1f} x the floor of {floor:.2g} ms"
        told = f"{ms:9.2f} ms {megabytes:7.0f} MB   {ratio}, error {error:.1e}"
        print(f"{engine:6} forward             {told}")
        ms, megabytes = clock(lambda: both_ways(image, radius, engine))  # noqa: B023
        print(f"{engine:6} forward + backward  {ms:9.2f} ms {megabytes:7.0f} MB")

    radiance, depth, focus, camera = scene_at(size, radius_px)
    sweep = Camera(camera.f_number * STOPS, camera.focal_mm)
    given = radiance.to(device), depth.to(device), focus, sweep
    ms, megabytes = clock(lambda: taf_lens(*given))
    print(f"TAF Lens, eight stops     {ms:9.2f} ms {megabytes:7.0f} MB")
    ms, megabytes = clock(lambda: dr_bokeh_lens(*given))
    print(f"Dr.Bokeh Lens, the same   {ms:9.2f} ms {megabytes:7.0f} MB, its layers found each time")


if __name__ == "__main__":
    main()
