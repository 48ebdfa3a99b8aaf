"""The blur and both lenses on a GPU: Triton's kernels and the pure-torch engine.

    python benchmarks/gpu.py                                  # the current CUDA device
    python benchmarks/gpu.py --device cpu --size 128 --runs 1    # only to test this script

Times are the best of some runs, by the device's own events; memory is torch's peak above that before the
work. The floor is the time of the kernels' instructions at the given rate of the card: those for the taps at
every disc's soft rim and for the running sums of each of its rows, as counted in the code compiled for sm_90.
The error is the largest difference from the float64 definition on 16 rows, of the picture's maximum.
Nothing is asserted.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import torch
from measuring import Definition, best_of, forward_backward, options, rims
from scenes import many_layers, textured

from lens_models import Camera, blur, dr_bokeh_lens, taf_lens

STOPS = 2.0 ** (torch.arange(8) / 2.0)
#: 53 instructions for two mirrored taps, and the look-ups of a row in three channels' running sums.
INSTRUCTIONS_PER_TAP, INSTRUCTIONS_PER_ROW = 26.5, 45.0


def measured(work: Callable[[], object], cuda: bool, runs: int) -> tuple[float, str]:
    """Best time of some runs, ms; and as text, with the extra memory, which torch counts on a GPU only."""
    work()  # compiles, and makes plans
    if not cuda:
        ms = 1e3 * best_of(runs, work)
        return ms, f"{ms:9.2f} ms {0:7.0f} MB"
    best, before = math.inf, torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(runs):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        work()
        last.record()
        torch.cuda.synchronize()
        best = min(best, first.elapsed_time(last))
    return best, f"{best:9.2f} ms {(torch.cuda.max_memory_allocated() - before) / 1e6:7.0f} MB"


def main() -> None:
    arguments = options(
        __doc__,
        device="cuda",
        size=1024,
        radius={"default": 64.0, "help": "largest blur radius, px"},
        runs=10,
        threads=torch.get_num_threads(),
        peak={"default": 29.6, "help": "10^12 instructions/s; default an H100's"},
    )
    device, size, runs = torch.device(arguments.device), arguments.size, arguments.runs
    cuda = device.type == "cuda"
    if cuda and not torch.cuda.is_available():
        sys.exit("There is no GPU that torch can use: nothing was measured.")
    name = torch.cuda.get_device_name(device) if cuda else "CPU"
    print(f"{name}, torch {torch.__version__}, {size}², blur radii up to {arguments.radius:g} px")

    image, radius = (part.to(device) for part in textured(size, arguments.radius))
    taps, lines = rims(radius)
    instructions = taps * INSTRUCTIONS_PER_TAP + lines * INSTRUCTIONS_PER_ROW
    floor = instructions / (arguments.peak * 1e12) * 1e3
    definition = Definition(image, radius)
    for engine in ("gpu", "stack") if cuda else ("stack",):
        ms, text = measured(lambda: blur.gather(image, radius, engine=engine), cuda, runs)  # noqa: B023
        error = f"error {definition.error(blur.gather(image, radius, engine=engine)):.1e}"
        ratio = f"{ms / floor:.1f} x the floor of {floor:.2g} ms"
        print(f"{engine:6} forward             {text}   {ratio}, {error}")
        _, text = measured(lambda: forward_backward(image, radius, engine), cuda, runs)  # noqa: B023
        print(f"{engine:6} forward + backward  {text}")

    radiance, depth, focus, camera = many_layers(size, arguments.radius)
    sweep = Camera(camera.f_number * STOPS, camera.focal_mm)
    scene = radiance.to(device), depth.to(device), focus, sweep
    print(f"TAF Lens, eight stops     {measured(lambda: taf_lens(*scene), cuda, runs)[1]}")
    _, text = measured(lambda: dr_bokeh_lens(*scene), cuda, runs)
    print(f"Dr.Bokeh Lens, the same   {text}, layers included")


if __name__ == "__main__":
    main()
