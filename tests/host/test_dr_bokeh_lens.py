"""Dr.Bokeh Lens in the real server: what it has beyond TAF Lens."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tools.server import HostError
from tools.workflow import Graph

pytestmark = pytest.mark.host

WIDTH, HEIGHT = 96, 64
SHARED = 8  # inputs that both lenses have at their beginning; two more are at the end


class Scene(Graph):
    """A bright square at 1.5 m before a checkered wall at 6 m, focused on the wall unless said otherwise."""

    def __init__(self, comfy, tmp_path):
        super().__init__()
        self.comfy, self.tmp_path = comfy, tmp_path
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        self.inside = (abs(x - WIDTH // 2) < 20) & (abs(y - HEIGHT // 2) < 16)
        wall = np.where((x // 6 + y // 6) % 2, 40, 170)
        self.photo = np.where(self.inside[..., None], (250, 120, 30), wall[..., None]).astype(np.uint8)
        self.depth_m = np.where(self.inside, 1.5, 6.0).astype(np.float32)

    def picture(self, pixels, name="photo.png"):
        path = self.tmp_path / name
        Image.fromarray(pixels).save(path)
        return self("LoadImage", image=self.comfy.upload(path, f"{self.tmp_path.name}_{name}"))

    def lens(self, node="FineDefocusDrBokehLens", *, image=None, distance_m=6.0, f_numbers="2", **settings):
        path = self.tmp_path / "depth.npy"
        np.save(path, self.depth_m)
        stored = self.comfy.upload(path, f"{self.tmp_path.name}_depth.npy")
        depth = self("FineDefocusLoadDepth", file=stored, unit="metres", metres_per_unit=1.0, channel="")
        camera = self(
            "FineDefocusCamera", aperture="free", f_number=2.0, focal_mm=120.0,
            sensor="Full frame 36 × 24 mm", sensor_width_mm=36.0, sensor_height_mm=24.0,
            framing="crop to the picture",
        )  # fmt: skip
        cameras = self(
            "FineDefocusApertureSweep", camera=camera, sweep="list", start=1.8, end=22.0, step="1 stop",
            f_numbers=f_numbers,
        )  # fmt: skip
        return self(
            node,
            image=image or self.picture(self.photo),
            depth=depth,
            focus=self("FineDefocusFocusDistance", distance_m=distance_m, scale=1.0),
            camera=cameras,
            max_radius_px=64,
            depth_resampling="nearest (keeps edges)",
            **settings,
        )

    def run(self, **shown):
        """Pictures by name of what was to be shown, and the lens's text."""
        nodes = {name: self("PreviewImage", images=link)[0] for name, link in shown.items()}
        outputs = self.comfy.prompt(self)["outputs"]
        pictures = {
            name: np.stack(
                [
                    np.asarray(Image.open(io.BytesIO(self.comfy.view(i)))).astype(int)
                    for i in outputs[node]["images"]
                ]
            )
            for name, node in nodes.items()
        }
        (lens,) = [
            node for node, spec in self.items() if spec["class_type"].endswith(("BokehLens", "TAFLens"))
        ]
        return pictures, outputs[lens]["text"]


@pytest.fixture
def scene(comfy, tmp_path):
    return Scene(comfy, tmp_path)


def test_lenses_can_be_swapped_wire_by_wire(comfy):
    taf, bokeh = (comfy.object_info()[f"FineDefocus{name}Lens"] for name in ("TAF", "DrBokeh"))
    names = [
        [name for kind in ("required", "optional") for name in lens["input_order"].get(kind, [])]
        for lens in (taf, bokeh)
    ]
    assert names[0][SHARED:] == ["tilt", "swing"]
    assert names[1][:SHARED] == names[0][:SHARED]
    assert names[1][SHARED:] == ["subject", "background", "max_layers", "rays", "tilt", "swing"]
    for kind in ("required", "optional"):
        for name in taf["input_order"][kind]:
            assert bokeh["input"][kind][name] == taf["input"][kind][name]
    assert bokeh["output"][:3] == taf["output"]
    assert bokeh["output_name"] == ["image", "coc", "overlay", "layers"]


def test_a_near_square_melts_over_the_sharp_wall(scene):
    lens = scene.lens()
    pictures, (said,) = scene.run(image=lens, layers=lens.out(3))
    (out,) = pictures["image"]
    assert "2 layers" in said
    assert pictures["layers"].shape == (2, HEIGHT, WIDTH, 4)
    # orange has come over the wall, 4 px outside the square; far from it the wall is what it was
    beside = out[24:40, WIDTH // 2 + 23]
    assert (beside[:, 0] - beside[:, 2]).mean() > 25
    assert np.abs(out[:, :12] - scene.photo[:, :12]).max() <= 1
    nearest, farthest = pictures["layers"]
    # the host cuts to 8 bits where it does not round: 1 less
    np.testing.assert_allclose(nearest[HEIGHT // 2, WIDTH // 2], [250, 120, 30, 255], atol=1)
    assert nearest[2, 2, 3] == 0
    assert (farthest[..., 3] == 255).all()
    # under the square the wall goes on: no orange left
    hidden = farthest[HEIGHT // 2, WIDTH // 2, :3]
    assert np.ptp(hidden) <= 3


def test_a_sweep_is_its_stops(scene, comfy, tmp_path):
    swept, (said,) = scene.run(image=scene.lens(f_numbers="2, 4, 8"))
    assert said.startswith("3 ×")
    one = Scene(comfy, tmp_path)
    alone, _ = one.run(image=one.lens(f_numbers="2"))
    np.testing.assert_array_equal(swept["image"][0], alone["image"][0])
    change = [np.abs(frame - scene.photo).mean() for frame in swept["image"]]
    assert change[0] > change[1] > change[2] > 0


def test_subject_and_plate_of_other_sizes(scene):
    # half the size, and a plate that is plain blue: seen through the blurred rim of the square
    small = Image.fromarray((scene.inside * 255).astype(np.uint8)).resize((WIDTH // 2, HEIGHT // 2))
    mask = scene("ImageToMask", image=scene.picture(np.asarray(small.convert("RGB")), "m.png"), channel="red")
    blue = scene("EmptyImage", width=WIDTH // 2, height=HEIGHT // 2, batch_size=1, color=0x0000FF)
    lens = scene.lens(subject=mask, background=blue)
    pictures, (_, *warnings) = scene.run(image=lens, layers=lens.out(3))
    assert warnings == []
    rim = pictures["image"][0][HEIGHT // 2, WIDTH // 2 + 17]
    assert rim[2] > scene.photo[HEIGHT // 2, WIDTH // 2, 2] + 60
    np.testing.assert_allclose(pictures["layers"][-1][HEIGHT // 2, WIDTH // 2], [0, 0, 255, 255], atol=1)


def test_an_empty_mask_and_a_stretched_plate_are_said(scene):
    empty = scene("SolidMask", value=0.0, width=WIDTH, height=HEIGHT)
    tall = scene("EmptyImage", width=32, height=64, batch_size=1, color=0)
    _, (_, *warnings) = scene.run(image=scene.lens(subject=empty, background=tall))
    assert len(warnings) == 2
    assert "subject mask is empty" in warnings[0]
    assert "background is 32 × 64 px and the picture 96 × 64 px" in warnings[1]


def test_batches_that_do_not_go_together(scene):
    three = scene("EmptyImage", width=WIDTH, height=HEIGHT, batch_size=3, color=0)
    two = scene("RepeatImageBatch", image=scene.picture(scene.photo), amount=2)
    with pytest.raises(HostError, match="2 pictures do not go with 3 backgrounds"):
        scene.run(image=scene.lens(image=two, background=three))


def test_pictures_of_a_batch_have_their_own_layers(scene, comfy, tmp_path):
    dark = scene.picture((scene.photo * 0.5).astype(np.uint8), "dark.png")
    both = scene("ImageBatch", image1=scene.picture(scene.photo), image2=dark)
    pictures, _ = scene.run(image=scene.lens(image=both))
    one = Scene(comfy, tmp_path)
    alone, _ = one.run(image=one.lens(image=one.picture((scene.photo * 0.5).astype(np.uint8), "dark.png")))
    np.testing.assert_array_equal(pictures["image"][1], alone["image"][0])


@pytest.mark.parametrize("node", ["FineDefocusTAFLens", "FineDefocusDrBokehLens"])
def test_lamps_open_into_discs_and_the_rest_stays(scene, comfy, tmp_path, node):
    """A clipped lamp far behind the focus, with and without four stops of recovery."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    night = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
    night[(x - 70) ** 2 + (y - 20) ** 2 <= 4] = 255
    night[:, :20] = 200
    found = {}
    for stops in (0.0, 4.0):
        one = Scene(comfy, tmp_path)
        one.depth_m[:] = 6.0
        one.depth_m[:, :20] = 1.5
        lens = one.lens(node, image=one.picture(night, "n.png"), distance_m=1.5, highlight_recovery=stops)
        pictures, _ = one.run(image=lens)
        found[stops] = pictures["image"][0]
    brighter = found[4.0] - found[0.0]
    assert brighter[20, 70].min() > 60, "the disc is bright"
    assert np.abs(brighter[:, :18]).max() == 0, "what is in focus stays"
    assert np.abs(brighter[50:]).max() <= 1, "mid-tones away from lamps stay"
    assert found[4.0].max() <= 255


def test_rays_need_a_round_opening(scene):
    blades = scene(
        "FineDefocusApertureShape", shape="polygon", blades=6, curvature=0.0, rotation_deg=0.0, squeeze=1.0,
        inner=0.4, edge=0.0, cats_eye=0.0,
    )  # fmt: skip
    with pytest.raises(HostError, match="round opening only"):
        scene.run(image=scene.lens(shape=blades, rays=16))


def test_rays_see_the_same_scene(scene, comfy, tmp_path):
    traced, _ = scene.run(image=scene.lens(rays=64))
    one = Scene(comfy, tmp_path)
    discs, _ = one.run(image=one.lens())
    # 64 points per pixel leave noise; it averages out
    assert np.abs(traced["image"] - discs["image"]).mean() < 3
