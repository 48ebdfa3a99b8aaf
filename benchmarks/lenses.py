"""Time and memory of the lenses beside a naive torch loop: one scene, one frame.

    python benchmarks/lenses.py                  # 1024², CoC up to 50 px, two threads
    python benchmarks/lenses.py --size 2048 --radius 50

Nothing is asserted; peak memory is that of the whole process, torch included.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch
from blur import best_of, naive
from torch import Tensor

from lens_models import Camera, Focus, LayeredLens, coc_px, composite, dr_bokeh_lens, taf_lens

FOCUS_M, FOCAL_MM = 2.0, 85.0


def scene(size: int) -> tuple[Tensor, Tensor]:
    """A wall, posts and discs at six distances, and grass blades before them: much edge, many layers."""
    random = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    grain = torch.rand(3, size, size, generator=random) * 0.4
    image, depth = 0.2 + grain, torch.full((size, size), 20.0)
    for distance_m in (9.0, 5.0, 3.2, 2.0, 1.6, 1.3):
        mask = torch.zeros(size, size, dtype=torch.bool)
        for cx, cy, r in torch.rand(6, 3, generator=random).tolist():
            mask |= (x - cx * size) ** 2 + (y - cy * size) ** 2 < (0.03 + 0.06 * r) ** 2 * size**2
        if distance_m < 1.5:
            for foot, lean in torch.rand(60, 2, generator=random).tolist():
                mask |= ((x - foot * size) - (lean - 0.5) * (size - y)).abs() < 1.5 * (y > size / 2)
        colour = torch.rand(3, 1, 1, generator=random)
        image = torch.where(mask, 0.7 * colour + 0.5 * grain, image)
        depth = torch.where(mask, distance_m, depth)
    return image[None], depth[None]


def scene_at(size: int, radius_px: float) -> tuple[Tensor, Tensor, Focus, Camera]:
    """The scene and a camera whose largest blur radius in it is `radius_px`."""
    image, depth = scene(size)
    focus = Focus(FOCUS_M)
    at_one = coc_px(depth, focus, Camera(1.0, FOCAL_MM), size).abs().max().item() / 2
    return image, depth, focus, Camera(at_one / radius_px, FOCAL_MM)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--radius", type=float, default=25.0, help="largest blur radius, px")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--layers", type=int, default=6, help="at most so many layers")
    parser.add_argument("--rays", type=int, default=0, help="also time this many lens rays per pixel")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    image, depth, focus, camera = scene_at(arguments.size, arguments.radius)
    radius = coc_px(depth, focus, camera, arguments.size).abs() / 2
    runs = arguments.runs

    print(f"{arguments.size}², blur radius up to {radius.max():.1f} px, {arguments.threads} threads")
    share = min(1.0, (16 / arguments.radius) ** 2 * (1024 / arguments.size) ** 2)
    print(f"naive loop         {naive(image, radius, share):6.2f} s")
    print(f"TAF Lens           {best_of(runs, lambda: taf_lens(image, depth, focus, camera)):6.2f} s")
    most = {"max_layers": arguments.layers}
    seconds = best_of(runs, lambda: dr_bokeh_lens(image, depth, focus, camera, **most))
    print(f"Dr.Bokeh Lens      {seconds:6.2f} s")
    start = time.perf_counter()
    layers = LayeredLens(image, depth, **most).split(focus, camera)
    print(f"  its {len(layers)} layers     {time.perf_counter() - start:6.2f} s, once per scene")
    each = best_of(runs, lambda: composite(layers, focus, camera))
    print(f"  every aperture   {each:6.2f} s")
    if arguments.rays:
        traced = best_of(1, lambda: composite(layers, focus, camera, rays=arguments.rays))
        print(f"  by {arguments.rays} rays      {traced:6.2f} s")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
