"""What the pictures of the help pages show: one small workflow for each."""

from __future__ import annotations

from collections.abc import Callable

from .server import Server
from .workflow import Graph, Link

ENGINE, WALL = 2.35, 4.7  # of the motorcycle, m
#: The Info panel is about 270 px wide: two pictures side by side, one where details count, and large text.
COLUMNS, SMALL, LARGE = 2, 205, 320
PICTURES: dict[str, Callable[[Studio], Link]] = {}


class Studio(Graph):
    """A workflow in which inputs that are not given take the node's default, and the scenes for it."""

    def __init__(self, info: dict, server: Server):
        super().__init__()
        self.info, self.server = info, server

    def __call__(self, class_type: str, **inputs) -> Link:
        described = self.info[class_type]["input"]
        for name, (kind, *options) in described.get("required", {}).items():
            if "default" in (options[0] if options else {}):
                inputs.setdefault(name, options[0]["default"])
            elif isinstance(kind, list):
                inputs.setdefault(name, kind[0])
        return super().__call__(class_type, **inputs)

    def motorcycle(self) -> dict[str, Link]:
        depth = self("FineDefocusLoadDepth", file="motorcycle_depth.png", unit="millimetres")
        return {"image": self("LoadImage", image="motorcycle.png"), "depth": depth}

    def scene(self, name: str, depth: str = "") -> dict[str, Link]:
        """Picture and depth of a synthetic scene."""
        file = depth or f"{name}_depth.exr"
        return {
            "image": self("LoadImage", image=f"{name}.png"),
            "depth": self("FineDefocusLoadDepth", file=file, unit="metres"),
        }

    def camera(self, f_number: float, focal_mm: float, **more) -> Link:
        return self("FineDefocusCamera", aperture="free", f_number=f_number, focal_mm=focal_mm, **more)

    def sweep(self, focal_mm: float, *f_numbers: float) -> Link:
        numbers = " ".join(f"{n:g}" for n in f_numbers)
        camera = self.camera(f_numbers[0], focal_mm)
        return self("FineDefocusApertureSweep", camera=camera, sweep="list", f_numbers=numbers)

    def at(self, metres: float, scale: float = 1.0) -> Link:
        return self("FineDefocusFocusDistance", distance_m=metres, scale=scale)

    def taf(self, scene: dict, focus: Link, camera: Link, **more) -> Link:
        return self("FineDefocusTAFLens", **scene, focus=focus, camera=camera, **more)

    def bokeh(self, scene: dict, focus: Link, camera: Link, **more) -> Link:
        return self("FineDefocusDrBokehLens", **scene, focus=focus, camera=camera, **more)

    def cut(self, picture: Link, x: int, y: int, width: int, height: int) -> Link:
        return self("ImageCrop", image=picture, x=x, y=y, width=width, height=height)

    def batch(self, *pictures: Link) -> Link:
        together = pictures[0]
        for picture in pictures[1:]:
            together = self("ImageBatch", image1=together, image2=picture)
        return together

    def mask_picture(self, mask: Link) -> Link:
        return self("MaskToImage", mask=mask)

    def sheet(self, pictures: Link, *labels: str, columns: int = COLUMNS, **more) -> Link:
        return self(
            "FineDefocusContactSheet", images=pictures, columns=columns, labels="\n".join(labels),
            **{"picture_width": SMALL if columns > 1 else LARGE, "text_size": 18, **more},
        )  # fmt: skip


def picture(make: Callable[[Studio], Link]) -> Callable[[Studio], Link]:
    PICTURES[make.__name__.replace("_", "-")] = make
    return make


# ------------------------------------------------------------------------------------------- camera
@picture
def camera(s: Studio) -> Link:
    scene, focus = s.motorcycle(), s.at(ENGINE)
    sensors = ("Micro Four Thirds 17.3 × 13 mm", "1-inch 13.2 × 8.8 mm")
    by_sensor = [s.camera(2.0, 50.0), *(s.camera(2.0, 50.0, sensor=sensor) for sensor in sensors)]
    by_focal = [s.camera(2.0, focal) for focal in (35.0, 85.0, 135.0)]
    taken = [one for row in zip(by_focal, by_sensor, strict=True) for one in row]
    frames = [s.cut(s.taf(scene, focus, one), 330, 20, 390, 260) for one in taken]
    return s.sheet(
        s.batch(*frames), "35 mm f/2", "50 mm f/2, full frame", "85 mm f/2", "50 mm f/2, Four Thirds",
        "135 mm f/2", "50 mm f/2, 1-inch",
    )  # fmt: skip


@picture
def camera_from_photo(s: Studio) -> Link:
    depth = s("FineDefocusLoadDepth", file="hall_depth.exr", unit="metres")
    frames = []
    for more in ({}, {"f_number": 1.4, "focal_mm": 85.0}):
        photo = s("FineDefocusCameraFromPhoto", file="hall.jpg", **more)
        scene = {"image": photo, "depth": depth}
        frames.append(s.taf(scene, s.at(4.0), photo.out(2)))
    labels = ("as taken: f/16 35 mm", "set to f/1.4 85 mm")
    return s.sheet(s.batch(*frames), *labels)


@picture
def aperture_sweep(s: Studio) -> Link:
    cameras, focus = s.sweep(105.0, 1.8, 2.8, 4, 5.6, 8, 11, 16, 22), s.at(ENGINE)
    frames = s.cut(s.taf(s.motorcycle(), focus, cameras), 450, 20, 240, 160)
    return s.sheet(frames, camera=cameras, focus=focus)


@picture
def batch_sweep(s: Studio) -> Link:
    distances = s("FineDefocusFocusSweep", sweep="list", distances_m="2.15, 3, 4.7")
    items = s("FineDefocusBatchSweep", **s.motorcycle(), camera=s.sweep(105.0, 1.8, 4, 11), focus=distances)
    scene = {"image": items, "depth": items.out(1)}
    frames = s.cut(s.taf(scene, items.out(3), items.out(2)), 330, 20, 390, 260)
    # the same node that the page names, with its own labels for the rows and columns
    return s(
        "FineDefocusContactSheet", images=frames, picture_width=120, text_size=16, camera=items.out(2),
        focus=items.out(3), arrangement="rows and columns",
    )  # fmt: skip


# -------------------------------------------------------------------------------------------- focus
@picture
def focus_distance(s: Studio) -> Link:
    scene, lens = s.motorcycle(), s.camera(1.8, 105.0)
    frames, labels = [], []
    for metres, scale in zip((2.15, 3.0, WALL), (0.5, 1.0, 2.0), strict=True):
        frames += [s.taf(scene, s.at(metres), lens), s.taf(scene, s.at(ENGINE, scale), lens)]
        labels += [f"distance_m {metres:g}", f"scale {scale:g}, at {ENGINE:g}"]
    return s.sheet(s.batch(*frames), *labels)


@picture
def focus_sweep(s: Studio) -> Link:
    distances = s("FineDefocusFocusSweep", near_m=2.1, far_m=5.0, count=6)
    frames = s.taf(s.motorcycle(), distances, s.camera(1.8, 105.0))
    return s.sheet(s.cut(frames, 230, 0, 510, 340), focus=distances)


@picture
def rack_focus(s: Studio) -> Link:
    rack = s("FineDefocusRackFocus", frames=6, keyframes="0: 2.15\n-1: 4.7", easing="smooth start and stop")
    frames = s.taf(s.motorcycle(), rack, s.camera(1.8, 105.0))
    return s.sheet(s.cut(frames, 300, 0, 440, 330), focus=rack)


@picture
def focus_from_mask(s: Studio) -> Link:
    scene = s.scene("sitter")
    mask = scene["image"].out(1)
    focus = s("FineDefocusFocusFromMask", depth=scene["depth"], mask=mask)
    result = s.bokeh(scene, focus, s.camera(1.4, 85.0), subject=mask)
    half = s("SolidMask", value=0.6, width=768, height=512)
    painted = s(
        "ImageCompositeMasked", destination=scene["image"],
        source=s("EmptyImage", width=768, height=512, color=0x30C060),
        mask=s("MaskComposite", destination=mask, source=half, operation="multiply"),
    )  # fmt: skip
    frames = s.batch(painted, result)
    return s.sheet(frames, "the mask", "focus on what it covers")


@picture
def focus_overlay(s: Studio) -> Link:
    return s("FineDefocusFocusOverlay", **s.motorcycle(), focus=s.at(ENGINE), camera=s.camera(4.0, 85.0))


@picture
def predict_focus(s: Studio) -> Link:
    scene = s.motorcycle()
    focus = s("FineDefocusPredictFocus", **scene)
    saliency = s.mask_picture(focus.out(3))
    result = s.taf(scene, focus, s.camera(1.8, 105.0))
    return s.sheet(
        s.batch(scene["image"], saliency, focus.out(4), result),
        "image",
        "saliency",
        "overlay",
        "through a lens",
    )


# -------------------------------------------------------------------------------------------- depth
@picture
def depth_preview(s: Studio) -> Link:
    return s("FineDefocusDepthPreview", depth=s.motorcycle()["depth"])


@picture
def load_depth(s: Studio) -> Link:
    scene = s.motorcycle()
    colours = s("FineDefocusDepthPreview", depth=scene["depth"], legend=False)
    valid = s.mask_picture(scene["depth"].out(1))
    blurred = s.taf(scene, s.at(ENGINE), s.camera(1.8, 105.0))
    frames = s.batch(scene["image"], colours, valid, blurred)
    return s.sheet(frames, "the photo", "depth, filled", "valid", "through a lens")


@picture
def depth_from_image(s: Studio) -> Link:
    scene = s.motorcycle()
    grey = s("FineDefocusDepthPreview", depth=scene["depth"]).out(1)
    frames = [scene["image"], grey]
    for convention in ("near is bright", "near is dark"):
        depth = s("FineDefocusDepthFromImage", image=grey, convention=convention, near_m=2.1, far_m=5.0)
        frames.append(s.taf({**scene, "depth": depth}, s.at(2.2), s.camera(1.8, 105.0)))
    return s.sheet(s.batch(*frames), "the photo", "image", "near is bright", "near is dark: wrong")


# --------------------------------------------------------------------------------------------- lens
@picture
def lenses(s: Studio) -> Link:
    scene, focus, lens = s.motorcycle(), s.at(WALL), s.camera(1.4, 135.0)
    frames = [s.cut(make(scene, focus, lens), 330, 30, 390, 270) for make in (s.taf, s.bokeh)]
    return s.sheet(s.batch(*frames), "TAF Lens", "Dr.Bokeh Lens", columns=1)


@picture
def layers(s: Studio) -> Link:
    scene = s.motorcycle()
    lens = s.bokeh(scene, s.at(ENGINE), s.camera(1.8, 105.0), max_layers=3)
    return s.sheet(s.batch(lens, lens.out(3)), "image", "nearest layer", "", "farthest, filled")


@picture
def subject(s: Studio) -> Link:
    scene, lens, focus = s.scene("sitter"), s.camera(1.4, 85.0), s.at(1.4)
    both = [s.bokeh(scene, focus, lens), s.bokeh(scene, focus, lens, subject=scene["image"].out(1))]
    frames = [s.cut(one, 250, 40, 270, 180) for one in both]
    return s.sheet(s.batch(*frames), "depth alone", "with a subject mask", columns=1)


@picture
def highlights(s: Studio) -> Link:
    scene, focus, lens = s.scene("street"), s.at(2.2), s.camera(1.4, 85.0)
    frames = [s.bokeh(scene, focus, lens, highlight_recovery=stops) for stops in (0.0, 3.0)]
    return s.sheet(s.batch(*frames), "highlight_recovery 0", "highlight_recovery 3", columns=1)


@picture
def tilt(s: Studio) -> Link:
    scene, focus, lens = s.scene("town", "town_depth.npy"), s.at(1.0), s.camera(1.4, 50.0)
    frames = [s.taf(scene, focus, lens, tilt=degrees) for degrees in (0.0, 60.0, -60.0)]
    return s.sheet(
        s.batch(scene["image"], *frames), "sharp everywhere", "tilt 0", "tilt 60: the ground",
        "tilt -60: a toy", picture_width=250,
    )  # fmt: skip


@picture
def aperture_shape(s: Studio) -> Link:
    scene, focus, lens = s.scene("street"), s.at(2.2), s.camera(1.4, 105.0)
    shapes = {
        "disc": {"shape": "disc"},
        "polygon, 6 blades": {"shape": "polygon", "blades": 6, "curvature": 0.1},
        "squeeze 2": {"shape": "disc", "squeeze": 2.0},
        "cats_eye 0.8": {"shape": "disc", "cats_eye": 0.8},
        "ring": {"shape": "ring (mirror lens)", "inner": 0.5},
        "edge 1": {"shape": "disc", "edge": 1.0},
        "edge -1": {"shape": "disc", "edge": -1.0},
        "polygon, 3 blades": {"shape": "polygon", "blades": 3, "curvature": 0.0},
    }
    frames = []
    for settings in shapes.values():
        shape = s("FineDefocusApertureShape", **settings)
        lens_out = s.taf(scene, focus, lens, shape=shape, highlight_recovery=4.0)
        frames.append(s.cut(lens_out, 0, 0, 330, 220))
    return s.sheet(s.batch(*frames), *shapes)


# ------------------------------------------------------------------------------------------- output
@picture
def contact_sheet(s: Studio) -> Link:
    cameras, focus = s.sweep(85.0, 1.4, 2.8, 5.6, 11), s.at(2.15)
    frames = s.taf(s.motorcycle(), focus, cameras)
    return s.sheet(frames, "", "my own label", camera=cameras, focus=focus)


@picture
def save_photo(s: Studio) -> Link:
    """The names are those that a first run saved."""
    cameras, focus = s.sweep(105.0, 1.8, 2.8, 5.6, 11), s.at(ENGINE)
    frames = s.taf(s.motorcycle(), focus, cameras)
    saved = s(
        "FineDefocusSavePhoto", images=frames, filename_prefix="bike", format="JPEG", values_in_name=True,
        camera=cameras, focus=focus,
    )  # fmt: skip
    names = [image["filename"] for image in s.server.prompt(s)["outputs"][saved[0]]["images"]]
    del s[saved[0]]
    return s.sheet(frames, *names)


@picture
def blur_monotonicity(s: Studio) -> Link:
    cameras = s.sweep(105.0, 1.8, 2.8, 4, 5.6, 8, 11, 16, 22)
    frames = s.taf(s.motorcycle(), s.at(ENGINE), cameras)
    one = [s("ImageFromBatch", image=frames, batch_index=i, length=1) for i in (0, 1, 2, 4, 3, 5, 6, 7)]
    plots = [
        s("FineDefocusBlurMonotonicity", images=images, measured_in="linear light", camera=cameras).out(2)
        for images in (frames, s.batch(*one))
    ]
    return s.sheet(
        s.batch(*plots), "a lens of this pack", "f/5.6 and f/8 exchanged", columns=1, picture_width=400
    )


@picture
def content_consistency(s: Studio) -> Link:
    """The scores are those of a first run."""
    narrow, wide = (s("LoadImage", image=f"labels_{stop}.png") for stop in ("narrow", "wide"))
    score = s("FineDefocusContentConsistency", labels=s.batch(narrow, wide))
    s("PreviewAny", source=score)
    (text,) = s.server.prompt(s)["outputs"][score[0]]["text"]
    differ = s("LoadImage", image="labels_differ.png")
    frames = s.batch(s("LoadImage", image="sitter.png"), narrow, wide, differ)
    return s.sheet(frames, "a picture", "labels at f/22", "labels at f/4", text.splitlines()[0])
