"""The animation at the top of the README: the demo photo, its aperture and its focus moving.

Standard library only, as `dev.py demo` sends it to a ComfyUI from a plain Python.
"""

from __future__ import annotations

from .workflow import Graph, Link

NAME = "hero"
WIDTH = 624
FRAMES_PER_SECOND = 7.0
#: Where the motorcycle's engine and the wall behind it are, m.
ENGINE, WALL = 2.35, 4.7
F_NUMBERS = (22.0, 11.0, 8.0, 5.6, 4.0, 2.8, 1.8)
DISTANCES = (2.61, 2.94, 3.36, 3.92, WALL)  # evenly in 1/distance, as blur is
#: What is rendered once: the aperture opens on the engine, then the focus goes to the wall.
STILLS = [(n, ENGINE) for n in F_NUMBERS] + [(F_NUMBERS[-1], d) for d in DISTANCES]
#: The still of each frame: there slowly, back faster.
FRAMES = (0, 0, 1, 2, 3, 4, 5, 6, 6, 6, 7, 8, 9, 10, 11, 11, 11, 9, 7, 6, 4, 2)


def hero(photo: str, depth: str) -> Graph:
    """The workflow; photo and depth are files in ComfyUI's input folder."""
    g = Graph()
    camera = g(
        "FineDefocusCamera", aperture="f/1.8", f_number=1.8, focal_mm=105.0, sensor="Full frame 36 × 24 mm",
        sensor_width_mm=36.0, sensor_height_mm=24.0, framing="crop to the picture",
    )  # fmt: skip
    sweep = g(
        "FineDefocusApertureSweep", camera=camera, sweep="list", start=1.8, end=22.0, step="1 stop",
        f_numbers=" ".join(f"{n:g}" for n in F_NUMBERS),
    )  # fmt: skip
    rack = g(
        "FineDefocusRackFocus", frames=len(DISTANCES), easing="even", scale=1.0,
        keyframes="\n".join(f"{i}: {d:g}" for i, d in enumerate(DISTANCES)),
    )  # fmt: skip
    scene = {
        "image": g("LoadImage", image=photo),
        "depth": g("FineDefocusLoadDepth", file=depth, unit="millimetres", metres_per_unit=0.001, channel=""),
        "max_radius_px": 512,
        "depth_resampling": "nearest (keeps edges)",
    }
    # two lenses, as one focus is cut into layers only once for all its apertures
    engine = g("FineDefocusFocusDistance", distance_m=ENGINE, scale=1.0)
    stills = g(
        "ImageBatch",
        image1=g("FineDefocusDrBokehLens", focus=engine, camera=sweep, **scene),
        image2=g("FineDefocusDrBokehLens", focus=rack, camera=camera, **scene),
    )
    # WebP and not GIF: 256 colours would show bands in every blur, in a file several times as large
    g(
        "SaveAnimatedWEBP", images=_in_order(g, stills), filename_prefix=NAME, fps=FRAMES_PER_SECOND,
        lossless=False, quality=85, method="slowest",
    )  # fmt: skip
    return g


def _in_order(g: Graph, stills: Link) -> Link:
    """The frames, each a sheet of one picture, which says aperture and distance always in the same place."""
    sheets = [
        g(
            "FineDefocusContactSheet", images=g("ImageFromBatch", image=stills, batch_index=i, length=1),
            columns=1, picture_width=WIDTH, text_size=22, labels=f"f/{f_number:g}   focus {distance:.2f} m",
        )
        for i, (f_number, distance) in enumerate(STILLS)
    ]  # fmt: skip
    frames = sheets[FRAMES[0]]
    for still in FRAMES[1:]:
        frames = g("ImageBatch", image1=frames, image2=sheets[still])
    return frames
