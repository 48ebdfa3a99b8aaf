"""Memory that a lens takes for one picture, each figure from a fresh process.

    python benchmarks/memory.py                        # 4096², R = 64, both lenses, no budget
    python benchmarks/memory.py --size 2048 --budgets 0 512 --lenses taf-stack

The figure is the peak of resident memory (VmHWM of /proc, so Linux only) while the lens works, less that at
its start: it leaves out the picture, its depth and torch, and includes the result. The longest wait is that
between two reports of progress, which is how long an interrupt may have to wait. A small picture goes through
the lens first, so that compiled kernels are not in the figure. Budgets are the `memory_bytes` of the lens in
MB, 0 for none. Nothing is asserted.
"""

from __future__ import annotations

import time

from measuring import extra_mb, in_fresh_process, options
from scenes import many_layers

from lens_models import LayeredLens, composite, taf_lens

LENSES = ["taf-cpu", "taf-stack", "layers", "composite"]


def measure(lens: str, size: int, radius_px: float, budget_mb: int) -> tuple[float, float, float]:
    """One lens at one size: extra MB, seconds, and the longest wait between two reports."""
    longest = last = 0.0

    def report(*_: int) -> None:
        nonlocal longest, last
        now = time.perf_counter()
        longest, last = max(longest, now - last), now

    scene = many_layers(size, radius_px)
    limit = budget_mb << 20 or None
    pictures, cameras = scene[:2], scene[2:]
    layers = LayeredLens(*pictures).split(*cameras) if lens == "composite" else None

    def work() -> object:
        if lens == "layers":
            return LayeredLens(*pictures).split(*cameras, on_progress=report)
        if layers is not None:
            return composite(layers, *cameras, on_progress=report, memory_bytes=limit)
        return taf_lens(*scene, engine=lens.removeprefix("taf-"), on_progress=report, memory_bytes=limit)

    last = time.perf_counter()
    return *extra_mb(work), longest


def main() -> None:
    arguments = options(
        __doc__,
        size=4096,
        radius={"default": 64.0, "help": "largest blur radius, px"},
        lenses={"default": LENSES, "choices": LENSES},
        budgets={"default": [0], "help": "MB, 0 for none"},
        threads=2,
        one={"default": False, "help": "measure the first lens and budget in this process"},
    )
    size, radius_px, threads = arguments.size, arguments.radius, arguments.threads
    if arguments.one:
        for side in (256, size):
            measured = measure(arguments.lenses[0], side, radius_px, arguments.budgets[0])
        print("{:.0f} {:.1f} {:.2f}".format(*measured))
        return
    print(f"{size}², blur radius up to {radius_px:g} px, {threads} threads")
    settings = "--one", "--size", size, "--radius", radius_px, "--threads", threads
    for lens in arguments.lenses:
        for budget in arguments.budgets:
            extra, seconds, wait = in_fresh_process(*settings, "--lenses", lens, "--budgets", budget).split()
            limit = f"budget {budget} MB" if budget else "no budget"
            print(f"{lens:10} {limit:15} {extra:>6} MB  {seconds:>6} s  longest wait {wait} s", flush=True)


if __name__ == "__main__":
    main()
