"""Memory that a lens takes for one picture, each figure from a fresh process.

    python benchmarks/memory.py                        # 4096², R = 64, both lenses, no budget
    python benchmarks/memory.py --size 2048 --budgets 0 512 --lenses taf-stack

What is printed is the peak resident memory (VmHWM of /proc, so Linux only) while the lens works, less what
was resident when it began: the picture, its depth and torch are in neither, the result is in the figure. The
longest wait is that between two reports of progress, which is how long an interrupt may have to wait.
A small picture goes through the lens first, so that compiled kernels are not in the figure. Budgets are
the `memory_bytes` of the lens in MB, 0 for none. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from lenses import scene_at
from measuring import extra_mb

from lens_models import LayeredLens, composite, taf_lens

LENSES = ("taf-cpu", "taf-stack", "layers", "composite")


def run(lens: str, size: int, radius_px: float, budget_mb: int) -> None:
    """One lens at one size: prints extra MB, seconds, and the longest wait between two reports."""
    longest = last = 0.0

    def report(*_: int) -> None:
        nonlocal longest, last
        now = time.perf_counter()
        longest, last = max(longest, now - last), now

    def expose(side: int) -> tuple[float, float]:
        nonlocal longest, last
        scene = scene_at(side, radius_px)
        limit = {"memory_bytes": budget_mb << 20} if budget_mb else {}
        layers = LayeredLens(*scene[:2]).split(*scene[2:]) if lens == "composite" else None

        def work() -> object:
            if lens == "layers":
                return LayeredLens(*scene[:2]).split(*scene[2:], on_progress=report)
            if layers is not None:
                return composite(layers, *scene[2:], on_progress=report, **limit)
            return taf_lens(*scene, engine=lens.removeprefix("taf-"), on_progress=report, **limit)

        longest, last = 0.0, time.perf_counter()
        return extra_mb(work)

    expose(256)
    extra, seconds = expose(size)
    print(f"{extra:.0f} {seconds:.1f} {longest:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--radius", type=float, default=64.0, help="largest blur radius, px")
    parser.add_argument("--lenses", nargs="+", default=list(LENSES), choices=LENSES)
    parser.add_argument("--budgets", type=int, nargs="+", default=[0], help="MB, 0 for none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", action="store_true", help="this process is the one to be measured")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        run(arguments.lenses[0], arguments.size, arguments.radius, arguments.budgets[0])
        return
    print(f"{arguments.size}², blur radius up to {arguments.radius:g} px, {arguments.threads} threads")
    for lens in arguments.lenses:
        for budget in arguments.budgets:
            command = [sys.executable, __file__, "--one", "--lenses", lens, "--budgets", str(budget)]
            command += ["--size", str(arguments.size), "--radius", str(arguments.radius)]
            command += ["--threads", str(arguments.threads)]
            told = subprocess.run(command, capture_output=True, text=True, check=False)
            if told.returncode:
                sys.exit(told.stderr)
            extra, seconds, wait = told.stdout.split()
            limit = f"budget {budget} MB" if budget else "no budget"
            print(f"{lens:10} {limit:15} {extra:>6} MB  {seconds:>6} s  longest wait {wait} s", flush=True)


if __name__ == "__main__":
    main()
