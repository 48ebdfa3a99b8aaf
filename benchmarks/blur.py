"""The blur engines against a naive torch loop, the float64 definition and the machine's own bounds.

    python benchmarks/blur.py                  # 1024², R = 8, 16, 32, 64, one thread
    python benchmarks/blur.py --threads 2 --sizes 2048 --radii 32

The naive loop computes a weight map and a shifted copy for every offset of the window; from R = 32 on it runs
a stated share of its offsets and is scaled up. The floor is the least time of a blur by spans
(`measuring.Machine`): the taps of every disc's soft rim and two look-ups per row of it at the rate of this
machine's matrix product, and one pass over the data at that of a copy. Memory is the peak of a fresh process
in addition to picture and radii, with the result, after a small picture. The error is the largest difference
from the definition on 16 rows, of the picture's maximum. Nothing is asserted; the tests check numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from measuring import (
    Definition,
    Machine,
    best_of,
    extra_mb,
    forward_backward,
    in_fresh_process,
    naive_seconds,
    options,
    processor,
)
from scenes import textured
from torch import Tensor

from lens_models import Camera, Focus, blur, taf_lens

#: The row of forward and backward, which only this engine has on a CPU.
BOTH_WAYS = "stack, both ways"


def work_of(row: str, image: Tensor, radius: Tensor) -> Callable[[], Tensor]:
    """What a row of the table times: an engine, or its forward and backward pass."""
    if row == BOTH_WAYS:
        return lambda: forward_backward(image, radius, "stack")
    return lambda: blur.gather(image, radius, engine=row)


def sweep_ratio(size: int, radius_px: float, engine: str, runs: int) -> float:
    """Eight full stops of one picture against its widest stop alone, through `taf_lens`."""
    image, _ = textured(size, radius_px)
    depth = torch.linspace(1.0, 20.0, size)[None, :, None].expand(1, size, size).contiguous()
    focal_mm, focus = 50.0, Focus(2.0)
    widest = focal_mm**2 / (2 * radius_px * (2000 - focal_mm)) * size / 36
    stops = torch.tensor([widest * 2 ** (k / 2) for k in range(8)])

    def seconds(stops: Tensor) -> float:
        return best_of(runs, lambda: taf_lens(image, depth, focus, Camera(stops, focal_mm), engine=engine))

    return seconds(stops) / seconds(stops[:1])


def main() -> None:
    arguments = options(
        __doc__,
        radii=[8.0, 16.0, 32.0, 64.0],
        sizes=[1024],
        threads=1,
        runs=5,
        memory_of={"default": None, "help": "only print the memory of one row, measured in this process"},
    )
    if arguments.memory_of:
        work_of(arguments.memory_of, *textured(256, 8.0))()  # compiles
        work = work_of(arguments.memory_of, *textured(arguments.sizes[0], arguments.radii[0]))
        print(f"{extra_mb(work)[0]:.0f}")
        return

    engines = ["stack", "cpu"] if find_spec("numba") else ["stack"]
    if "cpu" not in engines:
        print("numba is not installed: its engine is left out")
    machine = Machine()
    print(f"{processor()}, {arguments.threads} threads, torch {torch.__version__}, best of {arguments.runs}")
    print(f"{machine.multiply_adds / 1e9:.0f} G multiply-adds/s, {machine.bytes / 1e9:.1f} GB/s\n")
    print("| size | R | engine | ms | naive / it | it / floor | memory, MB | error |")
    print("|---|---|---|---|---|---|---|---|")
    for size in arguments.sizes:
        for radius_px in arguments.radii:
            image, radius = textured(size, radius_px)
            definition, floor = Definition(image, radius), machine.floor(image, radius)
            (naive, share), start = naive_seconds(image, radius), f"| {size}² | {radius_px:g} |"
            name = "naive loop" if share == 1 else f"naive loop, from {share:.0%}"
            print(f"{start} {name} | {1e3 * naive:.0f} | 1 | {naive / floor:.0f} | | |", flush=True)
            for row in (*engines, BOTH_WAYS):
                work = work_of(row, image, radius)
                blurred = work()  # warms plans and compilation
                seconds = best_of(arguments.runs, work)
                error = f"{definition.error(blurred):.1e}" if row in engines else ""
                settings = "--threads", arguments.threads, "--sizes", size, "--radii", radius_px
                memory = float(in_fresh_process("--memory-of", row, *settings))
                figures = (
                    f"{1e3 * seconds:.0f} | {naive / seconds:.0f} | {seconds / floor:.1f} | {memory:.0f}"
                )
                print(f"{start} {row} | {figures} | {error} |", flush=True)
        print()
        for engine in engines:
            ratio = sweep_ratio(size, 32, engine, arguments.runs)
            print(f"| {size}² | 32 | {engine}: eight full stops / one | {ratio:.2f} | | | | |", flush=True)


if __name__ == "__main__":
    main()
