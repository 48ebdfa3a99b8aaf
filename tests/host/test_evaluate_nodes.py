"""The metric nodes in the real server."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lens_models.metrics.lpips import LPIPS
from tools.provision import REPO
from tools.server import HostError
from tools.workflow import Graph

pytestmark = pytest.mark.host

CAMERA = {
    "aperture": "free", "f_number": 2.0, "focal_mm": 85.0, "sensor": "Full frame 36 × 24 mm",
    "sensor_width_mm": 36.0, "sensor_height_mm": 24.0, "framing": "crop to the picture",
}  # fmt: skip
VALUES, LIGHT = "picture values (as in the paper)", "linear light"


class Bench(Graph):
    """Pictures around a metric node, and what it says."""

    def __init__(self, comfy):
        super().__init__()
        self.comfy = comfy

    def grey(self, value, width=32, height=24):
        return self("MaskToImage", mask=self("SolidMask", value=value, width=width, height=height))

    def two_tone(self, value, width=32, height=24):
        """Black but for a left half of this value."""
        whole = self("SolidMask", value=0.0, width=width, height=height)
        half = self("SolidMask", value=value, width=width // 2, height=height)
        return self("MaskToImage", mask=self(
            "MaskComposite", destination=whole, source=half, x=0, y=0, operation="add"
        ))  # fmt: skip

    def batch(self, *pictures):
        together = pictures[0]
        for picture in pictures[1:]:
            together = self("ImageBatch", image1=together, image2=picture)
        return together

    def sweep(self, f_numbers="1.8, 2.8, 4, 5.6, 8, 11, 16, 22"):
        return self(
            "FineDefocusApertureSweep", camera=self("FineDefocusCamera", **CAMERA), sweep="list", start=1.8,
            end=22.0, step="1 stop", f_numbers=f_numbers,
        )  # fmt: skip

    def monotonicity(self, images, measured_in=VALUES, f_numbers="1.8, 2.8, 4", **more):
        return self(
            "FineDefocusBlurMonotonicity", images=images, measured_in=measured_in, f_numbers=f_numbers, **more
        )

    def number(self, link):
        """Show a FLOAT or STRING; `run` answers with its text."""
        return self("PreviewAny", source=link)[0]

    def run(self, *nodes, pictures=()):
        """Text of each node, and the pictures of each PreviewImage."""
        outputs = self.comfy.prompt(self)["outputs"]
        shown = [
            np.stack(
                [np.asarray(Image.open(io.BytesIO(self.comfy.view(i)))) for i in outputs[node]["images"]]
            )
            for node in pictures
        ]
        texts = ["\n".join(outputs[node]["text"]) for node in nodes]
        return (texts, shown) if pictures else texts


@pytest.fixture
def bench(comfy):
    return Bench(comfy)


# ------------------------------------------------------------------------------------- Blur Monotonicity
@pytest.mark.parametrize("lens", ["FineDefocusTAFLens", "FineDefocusDrBokehLens"])
def test_the_packs_lenses_pass_on_a_real_photo(bench, photo, lens):
    image = bench("LoadImage", image=photo[0])
    image = bench("ImageScale", image=image, upscale_method="area", width=246, height=166, crop="disabled")
    depth = bench(
        "FineDefocusLoadDepth", file=photo[1], unit="millimetres", metres_per_unit=0.001, channel=""
    )
    camera = bench.sweep()
    sweep = bench(
        lens, image=image, depth=depth, focus=bench("FineDefocusFocusDistance", distance_m=2.4, scale=1.0),
        camera=camera, max_radius_px=64, depth_resampling="nearest (keeps edges)",
    )  # fmt: skip
    by_light = bench.monotonicity(sweep, LIGHT, camera=camera)
    by_values = bench.monotonicity(sweep, VALUES, camera=camera)
    plot = bench("PreviewImage", images=by_light.out(2))[0]
    asked = [by_light, by_light.out(1), by_light.out(3), by_values.out(1)]
    asked = [bench.number(link) for link in asked]
    texts, ((drawn,),) = bench.run(*asked, by_values[0], pictures=[plot])
    assert [float(texts[i]) for i in (0, 1, 3)] == [1.0, 1.0, 1.0]
    assert texts[2] == "Energy: 100 %, 7 of 7 stops\nEnergy about the mean: 100 %, 7 of 7 stops"
    assert "⚠ The detail falls with every stop, but the values get brighter with blur" in texts[4]
    assert drawn.shape == (600, 960, 3)
    assert not (drawn == (255, 82, 82)).all(axis=-1).any()  # nothing failed, nothing red


def test_brightness_alone_and_what_failed_in_words(bench):
    """Flat greys: the energy goes up, down; there is no detail at all, which ties."""
    images = bench.batch(bench.grey(0.2), bench.grey(0.6), bench.grey(0.4))
    found = bench.monotonicity(images)
    score, detail, text, shown = bench.run(
        bench.number(found), bench.number(found.out(1)), bench.number(found.out(3)), found[0]
    )
    assert (float(score), float(detail)) == (0.5, 0.0)
    assert text == shown == (
        "Energy: 50 %, 1 of 2 stops; not from f/2.8 to f/4\n"
        "Energy about the mean: 0 %, 0 of 2 stops; not from f/1.8 to f/2.8, f/2.8 to f/4"
    )  # fmt: skip


def test_f_numbers_say_the_order(bench):
    images = bench.batch(bench.two_tone(0.9), bench.two_tone(0.3), bench.two_tone(0.5))
    found = bench.monotonicity(images, f_numbers="f/8; f/2, 4")
    assert [float(t) for t in bench.run(bench.number(found), bench.number(found.out(1)))] == [1.0, 1.0]


def test_bad_sweeps_are_sentences(comfy):
    def said(match, count=3, cameras=None, **settings):
        bench = Bench(comfy)
        images = bench.batch(*[bench.two_tone(0.1 * (i + 1)) for i in range(count)])
        more = {"camera": bench.sweep(cameras)} if cameras else {}
        bench.number(bench.monotonicity(images, **settings, **more))
        with pytest.raises(HostError, match=match):
            bench.run()

    said("3 pictures and 2 f-numbers", f_numbers="2, 4")
    said(r"Pictures 2 and 3 are both at f/4", f_numbers="2, 4, 4")
    said("at least 2 pictures; there is 1", count=1, f_numbers="2")
    said(r'"soon" \(item 2\) is not an f-number', f_numbers="2, soon, 4")
    said("3 pictures and 2 cameras", cameras="2, 4")


# ----------------------------------------------------------------------------------- Content Consistency
def consistency(bench, labels, maps=1, pairing="adjacent"):
    return bench("FineDefocusContentConsistency", labels=labels, labels_per_picture=maps, pairing=pairing)


@pytest.mark.parametrize("as_masks", [False, True])
def test_label_maps_as_pictures_and_as_masks(bench, as_masks):
    """Left halves differ between the first two pictures, nothing between the last two."""
    labels = bench.batch(bench.two_tone(0.2), bench.two_tone(0.8), bench.two_tone(0.8))
    if as_masks:
        labels = bench("ImageToMask", image=labels, channel="red")
    by_pairing = [consistency(bench, labels, pairing=p) for p in ("adjacent", "all", "reference")]
    adjacent, every, last, text = bench.run(
        *[bench.number(node) for node in by_pairing], bench.number(by_pairing[0].out(1))
    )
    assert float(adjacent) == 0.75
    assert float(every) == pytest.approx(2 / 3, abs=1e-9)  # as many digits as are shown
    assert float(last) == 0.75
    assert text == "Content consistency: 75 %\n1 and 2: 50 %\n2 and 3: 100 %"


def test_two_maps_for_each_picture(bench):
    """The two labels of the left half have changed places: together they agree, one by one they do not."""
    labels = bench.batch(bench.two_tone(0.2), bench.two_tone(0.8), bench.two_tone(0.8), bench.two_tone(0.2))
    assert float(bench.run(bench.number(consistency(bench, labels, maps=2)))[0]) == 1.0


def test_maps_that_do_not_go_together(comfy):
    for count, maps, match in ((3, 2, "3 label maps are not a whole number"), (2, 2, "there is 1")):
        bench = Bench(comfy)
        bench.number(consistency(bench, bench.batch(*[bench.grey(0.5)] * count), maps))
        with pytest.raises(HostError, match=match):
            bench.run()


# -------------------------------------------------------------------------------------------------- LPIPS
FILES = {"trunk": "alexnet-owt-7be5be79.safetensors", "heads": "alex.pth"}


@pytest.fixture
def weights(comfy):
    """A random network in models/lpips, which is empty again afterwards."""
    base = getattr(comfy, "base", None)
    if base is None:
        pytest.skip("the models folder of the ComfyUI at COMFYUI_URL is not ours to write")
    folder = base / "models" / "lpips"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = LPIPS().eval()
    state = network.state_dict()
    for key in state:
        if key.startswith("lin"):
            state[key].abs_()
    save_file({k: v for k, v in state.items() if k.startswith("features")}, folder / FILES["trunk"])
    torch.save({k: v for k, v in state.items() if k.startswith("lin")}, folder / FILES["heads"])
    yield network
    for file in folder.iterdir():
        file.unlink()


def test_lpips_of_neighbours_and_of_pairs(bench, photo, weights):
    image = bench("LoadImage", image=photo[0])
    image = bench("ImageScale", image=image, upscale_method="area", width=150, height=100, crop="disabled")
    small = bench("ImageScale", image=image, upscale_method="area", width=30, height=20, crop="disabled")
    blurred = bench("ImageScale", image=small, upscale_method="bilinear", width=150, height=100,
                    crop="disabled")  # fmt: skip
    sweep = bench.batch(image, image, blurred)
    neighbours = bench("FineDefocusLPIPS", images=sweep, **FILES)
    pairs = bench("FineDefocusLPIPS", images=sweep, others=blurred, **FILES)
    shown = [bench("PreviewImage", images=picture)[0] for picture in (image, blurred)]
    asked = [bench.number(link) for link in (neighbours, pairs, neighbours.out(1), pairs.out(1))]
    (mean, of_pairs, text, told), (sharp, soft) = bench.run(*asked, pictures=shown)
    a, b = (torch.from_numpy(p[0]).movedim(-1, 0)[None] / 255.0 for p in (sharp, soft))
    with torch.no_grad():
        expected = weights(a, b).item()
    # the test sees the pictures in 8 bits
    assert float(mean) == pytest.approx(expected / 2, rel=0.02)
    assert float(of_pairs) == pytest.approx(expected * 2 / 3, rel=0.02)
    assert expected > 1e-4
    assert text.splitlines()[1] == "1 and 2: 0.0000"
    assert [line.partition(":")[0] for line in told.splitlines()] == ["LPIPS", "pair 1", "pair 2", "pair 3"]


def test_lpips_says_what_is_missing(comfy, weights):
    def said(match, images, **settings):
        bench = Bench(comfy)
        bench.number(bench("FineDefocusLPIPS", images=bench.batch(*images(bench)), **{**FILES, **settings}))
        with pytest.raises(HostError, match=match):
            bench.run()

    said("There is 1 picture and nothing to compare it with", lambda b: [b.grey(0.5, 64, 64)])
    said("at least 31 × 31 px; these are 32 × 24 px", lambda b: [b.grey(0.1), b.grey(0.5)])
    said(
        r"alex\.pth holds no tensor that begins with features",
        lambda b: [b.grey(0.1, 64, 64), b.grey(0.5, 64, 64)],
        trunk=FILES["heads"],
    )


def test_no_weights_is_a_sentence(bench):
    none = "no file in models/lpips yet"
    images = bench.batch(bench.grey(0.1), bench.grey(0.5))
    bench.number(bench("FineDefocusLPIPS", images=images, trunk=none, heads=none))
    with pytest.raises(HostError, match=r"two files in models/lpips: alexnet-owt-7be5be79\.pth"):
        bench.run()


def test_every_metric_node_has_a_help_page(comfy):
    nodes = [name for name, info in comfy.object_info().items() if info["category"] == "fine defocus/measure"]
    assert len(nodes) == 3
    for name in nodes:
        page = (REPO / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
        inputs = comfy.object_info(name)["input"]
        for given in [*inputs["required"], *inputs.get("optional", {})]:
            assert f"| {given} |" in page
