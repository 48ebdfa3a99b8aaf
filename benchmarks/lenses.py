"""Time and memory of the lenses against a naive torch loop: one scene, one frame.

    python benchmarks/lenses.py                  # 1024², blur radii up to 25 px, two threads
    python benchmarks/lenses.py --size 2048 --radius 50

Nothing is asserted; peak memory is that of the whole process, torch included.
"""

from __future__ import annotations

import time

from measuring import best_of, naive_seconds, options, resident_mb
from scenes import many_layers

from lens_models import LayeredLens, coc_px, composite, dr_bokeh_lens, taf_lens


def main() -> None:
    arguments = options(
        __doc__,
        size=1024,
        radius={"default": 25.0, "help": "largest blur radius, px"},
        threads=2,
        runs=3,
        layers={"default": 6, "help": "largest number of layers"},
        rays={"default": 0, "help": "also time this many lens rays per pixel"},
    )
    image, depth, focus, camera = many_layers(arguments.size, arguments.radius)
    radius = coc_px(depth, focus, camera, arguments.size).abs() / 2
    runs, most = arguments.runs, {"max_layers": arguments.layers}

    print(f"{arguments.size}², blur radius up to {radius.max():.1f} px, {arguments.threads} threads")
    print(f"naive loop         {naive_seconds(image, radius)[0]:6.2f} s")
    print(f"TAF Lens           {best_of(runs, lambda: taf_lens(image, depth, focus, camera)):6.2f} s")
    seconds = best_of(runs, lambda: dr_bokeh_lens(image, depth, focus, camera, **most))
    print(f"Dr.Bokeh Lens      {seconds:6.2f} s")
    start = time.perf_counter()
    layers = LayeredLens(image, depth, **most).split(focus, camera)
    print(f"  its {len(layers)} layers     {time.perf_counter() - start:6.2f} s, once per scene")
    print(f"  every aperture   {best_of(runs, lambda: composite(layers, focus, camera)):6.2f} s")
    if arguments.rays:
        traced = best_of(1, lambda: composite(layers, focus, camera, rays=arguments.rays))
        print(f"  by {arguments.rays} rays      {traced:6.2f} s")
    print(f"peak memory {resident_mb('VmHWM'):.0f} MB")


if __name__ == "__main__":
    main()
