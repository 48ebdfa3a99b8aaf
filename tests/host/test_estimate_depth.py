"""Load Depth Model, Estimate Depth and Depth Preview in the real server, with a tiny random Metric3Dv2."""

from __future__ import annotations

import io
import os
import re
import subprocess
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lens_models.depth.metric3d.config import Metric3DConfig
from lens_models.depth.metric3d.network import Metric3Dv2
from tools import provision
from tools.server import HostError
from tools.workflow import Graph

pytestmark = pytest.mark.host

WIDTH, HEIGHT = 72, 48
LOAD, ESTIMATE, PREVIEW = "FineDefocusLoadDepthModel", "FineDefocusEstimateDepth", "FineDefocusDepthPreview"
TINY = "tests/tiny_metric3d.safetensors"
SETTINGS = {"canvas": "616 × 616", "sky_m": 0.0, "steady_scale": False, "guided": False}
CAMERA = {
    "aperture": "f/2.8", "f_number": 2.8, "focal_mm": 50.0, "sensor": "Full frame 36 × 24 mm",
    "sensor_width_mm": 36.0, "sensor_height_mm": 24.0, "framing": "crop to the picture",
}  # fmt: skip
LENGTH = r"([\d.]+) (m|cm)"
RANGE = re.compile(rf"px, {LENGTH} to {LENGTH}")


@pytest.fixture(scope="module")
def models(comfy):
    """The folder of depth models of the running ComfyUI, with a tiny Metric3Dv2 and files that are wrong."""
    if not getattr(comfy, "base", None):
        pytest.skip("the models folder of the ComfyUI at COMFYUI_URL is not ours to write to")
    folder = comfy.base / "models" / "geometry_estimation"
    (folder / "tests").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(3)
    network = Metric3Dv2(Metric3DConfig(24, 2, 1, "mlp", False, (8, 8), 8, 8, 2))
    weights = {f"depth_model.{name}": t.clone().contiguous() for name, t in network.state_dict().items()}
    # as initialised, the answer is nearly the same everywhere
    weights["depth_model.decoder.depth_regressor.2.weight"] *= 40
    save_file(weights, folder / TINY)
    torch.save({"model_state_dict": weights}, folder / "tests" / "whole.pth")
    whole = (folder / "tests" / "whole.pth").read_bytes()
    (folder / "tests" / "half.pth").write_bytes(whole[: len(whole) // 2])
    save_file({"unet.weight": torch.zeros(3)}, folder / "tests" / "other.safetensors")
    wrong = {**weights, "depth_model.decoder.update_block.mask.0.bias": torch.zeros(3)}
    save_file(wrong, folder / "tests" / "misshapen.safetensors")
    (folder / "tests" / "relative").mkdir(exist_ok=True)
    (folder / "tests" / "relative" / "config.json").write_text('{"model_type": "depth_anything"}')
    return folder


class Bench(Graph):
    """A picture and a tiny network; a test adds what it is about."""

    def __init__(self, comfy, tmp_path):
        super().__init__()
        self.comfy, self.tmp_path = comfy, tmp_path

    def photo(self, size=(WIDTH, HEIGHT), name="photo.jpg", exif=None, mode="RGB"):
        x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
        pixels = np.stack([x, y, (x * 7 + y * 5) % 1, x], axis=-1)[..., : len(mode)]
        data = Image.Exif()
        data.get_ifd(0x8769).update(exif or {})
        data[271] = "Voigtlander"
        path = self.tmp_path / name
        Image.fromarray((pixels * 255).astype(np.uint8), mode).save(path, exif=data)
        return self("LoadImage", image=self.comfy.upload(path, f"{self.tmp_path.name}_{name}"))

    def model(self, file=TINY, precision="automatic"):
        return self(LOAD, file=file, precision=precision)

    def estimate(self, image=None, model=None, **settings):
        image, model = image or self.photo(), model or self.model()
        return self(ESTIMATE, image=image, depth_model=model, **{**SETTINGS, **settings})

    def run(self, *shown):
        """(pictures of each output shown, texts of every node)"""
        previews = [self("PreviewImage", images=link)[0] for link in shown]
        outputs = self.comfy.prompt(self)["outputs"]
        pictures = [[self.seen(i) for i in outputs[node]["images"]] for node in previews]
        return pictures, {node: "\n".join(o["text"]) for node, o in outputs.items() if "text" in o}

    def seen(self, image):
        return np.asarray(Image.open(io.BytesIO(self.comfy.view(image))))


def nearest_and_farthest(text):
    near, near_unit, far, far_unit = RANGE.search(text).groups()
    return tuple(float(v) * (0.01 if u == "cm" else 1) for v, u in ((near, near_unit), (far, far_unit)))


@pytest.fixture
def bench(comfy, models, tmp_path):
    return Bench(comfy, tmp_path)


def test_a_photo_becomes_depth_confidence_and_normals(bench):
    found = bench.estimate()
    preview = bench(PREVIEW, depth=found, near_m=0.0, far_m=0.0, legend=True)
    sure = bench("MaskToImage", mask=found.out(1))
    (colours, (confidence,), (normal,)), texts = bench.run(preview, sure, found.out(2))
    assert confidence.shape[:2] == normal.shape[:2] == (HEIGHT, WIDTH)
    lengths = np.linalg.norm(normal[..., :3] / 127.5 - 1, axis=-1)
    assert np.abs(lengths - 1).max() < 0.03
    assert colours[0].shape[1] >= 240
    near, far = nearest_and_farthest(texts[found[0]])
    assert 0.01 <= near < far <= 300
    assert nearest_and_farthest(texts[preview[0]]) == (near, far)
    assert re.search(r"Metric3Dv2 24 wide, .* M weights, fp32 on cpu", "\n".join(texts.values()))


def test_depth_preview_runs_alone(bench):
    """It is an end of the graph, shows its picture on the node, and takes a clip."""
    clip = bench("RepeatImageBatch", image=bench.photo(), amount=3)
    preview = bench(PREVIEW, depth=bench.estimate(clip), near_m=0.5, far_m=50.0, legend=False)
    outputs = bench.comfy.prompt(bench)["outputs"][preview[0]]
    assert len(outputs["images"]) == 3
    assert bench.seen(outputs["images"][2]).shape == (HEIGHT, WIDTH, 3)


def test_near_beyond_far(bench):
    bench(PREVIEW, depth=bench.estimate(), near_m=9.0, far_m=2.0, legend=True)
    with pytest.raises(HostError, match="near_m is 9 and far_m is 2"):
        bench.run()


def said(bench, *links):
    texts = bench.run(*links)[1]
    return texts[next(node for node, what in bench.items() if what["class_type"] == ESTIMATE)]


def test_focal_length_of_a_camera(bench):
    found = bench.estimate(camera=bench("FineDefocusCamera", **CAMERA))
    text = said(bench, found.out(2))
    assert "Focal length 100 px, from the camera input" in text  # 50 / 36 · 72
    near, far = nearest_and_farthest(text)
    bench[bench[found[0]]["inputs"]["camera"][0]]["inputs"]["focal_mm"] = 100.0
    text = said(bench)
    assert "Focal length 200 px" in text
    assert nearest_and_farthest(text) == (pytest.approx(2 * near, rel=0.02), pytest.approx(2 * far, rel=0.02))


def test_focal_length_of_the_photo(bench):
    photo = bench.photo(exif={41989: 100, 37386: 65.0})
    text = said(bench, bench.estimate(photo).out(2))
    assert "Focal length 200 px, from the photo's EXIF (Voigtlander, 100 mm equivalent)" in text
    node = next(n for n, what in bench.items() if what["class_type"] == ESTIMATE)
    bench[node]["inputs"]["camera"] = bench("FineDefocusCamera", **CAMERA)
    assert "from the camera input" in said(bench)


def test_focal_length_of_nobody(bench):
    text = said(bench, bench.estimate(bench.photo(exif={41989: 0})).out(2))
    assert "The photo has no focal length in its EXIF: 70 px assumed, a 35 mm lens on full frame" in text


def test_a_cropped_photo_does_not_lend_its_focal_length(bench):
    photo = bench.photo(exif={41989: 100})
    crop = bench("ImageCrop", image=photo, width=40, height=40, x=0, y=0)
    text = said(bench, bench.estimate(crop).out(2))
    assert "No focal length given: 39 px assumed" in text


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (900, 7), (6, 700)])
def test_odd_sizes(bench, size):
    found = bench.estimate(bench.photo(size, "odd.png"), canvas="automatic")
    ((normal,),), texts = bench.run(found.out(2))
    assert normal.shape[:2] == (size[1], size[0])
    assert f"{size[0]} × {size[1]} px" in texts[found[0]]


def test_transparency_is_left_out(bench):
    photo = bench.photo()
    mask = bench("SolidMask", value=0.0, width=WIDTH, height=HEIGHT)
    rgba = bench("JoinImageWithAlpha", image=photo, alpha=mask)  # 0 in a mask is opaque there
    plain, clear = bench.estimate(photo), bench.estimate(rgba)
    previews = [bench(PREVIEW, depth=d, near_m=0.0, far_m=0.0, legend=False) for d in (plain, clear)]
    ((one,), (two,)), _ = bench.run(*previews)
    np.testing.assert_array_equal(one, two)


def test_sky(bench):
    found = bench.estimate(sky_m=0.02)
    preview = bench(PREVIEW, depth=found, near_m=0.0, far_m=0.0, legend=False)
    ((picture,),), texts = bench.run(preview)
    assert "100.0 % sky" in texts[found[0]]
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 1


def test_a_clip_with_a_steady_scale(bench):
    one = bench.photo()
    two = bench("ImageInvert", image=one)
    clip = bench("ImageBatch", image1=one, image2=two)
    found = bench.estimate(clip, steady_scale=True)
    _, texts = bench.run(found.out(2))
    assert texts[found[0]].startswith(f"2 × {WIDTH} × {HEIGHT} px")
    assert re.search(r"Steady scale: frames × [\d.]+ to [\d.]+", texts[found[0]])


def test_a_list_of_mixed_sizes(bench):
    """Nodes that give lists make Estimate Depth run once per picture."""
    batch = bench("RepeatImageBatch", image=bench.photo(), amount=2)
    small = bench("ImageScale", image=batch, upscale_method="area", width=30, height=40, crop="disabled")
    singles = [bench("ImageFromBatch", image=i, batch_index=0, length=1) for i in (batch, small)]
    mixed = bench("CreateList", **{f"inputs.input{n}": link for n, link in enumerate(singles)})
    found = bench.estimate(mixed)
    ((first, second),), texts = bench.run(found.out(2))
    assert [first.shape[:2], second.shape[:2]] == [(HEIGHT, WIDTH), (40, 30)]
    assert f"{WIDTH} × {HEIGHT} px" in texts[found[0]]
    assert "30 × 40 px" in texts[found[0]]


def test_zero_focal_length(bench):
    camera = bench("FineDefocusCamera", **{**CAMERA, "focal_mm": bench("PrimitiveFloat", value=0.0)})
    with pytest.raises(HostError, match="focal length is 0 mm: it must be greater than 0"):
        said(bench, bench.estimate(camera=camera).out(2))


def test_a_sweep_of_apertures_is_one_depth(bench):
    cameras = bench(
        "FineDefocusApertureSweep", camera=bench("FineDefocusCamera", **CAMERA), sweep="list", start=1.8,
        end=22.0, step="1 stop", f_numbers="2, 4, 8",
    )  # fmt: skip
    found = bench.estimate(camera=cameras)
    ((only,),), _ = bench.run(found.out(2))
    assert only.shape[:2] == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("tests/half.pth", r"half\.pth is incomplete or damaged .* download it again"),
        (
            "tests/other.safetensors",
            r"is not a Metric3Dv2 ViT checkpoint: it has no tensor encoder",
        ),
        ("tests/misshapen.safetensors", r"mask\.0\.bias should be \(8,\) and is \(3,\)"),
        ("tests/relative", r"gives relative depth, which has no metres"),
    ],
)
def test_wrong_files(bench, file, sentence):
    with pytest.raises(HostError, match=sentence):
        bench.run(bench.estimate(model=bench.model(file)).out(2))


def test_files_that_are_not_there(bench):
    with pytest.raises(HostError, match=r"nothing\.pth is not among the depth models"):
        bench.run(bench.estimate(model=bench.model("nothing.pth")).out(2))
    other = Bench(bench.comfy, bench.tmp_path)
    with pytest.raises(HostError, match=r'choose "metric_depth_vit_large_800k.pth \(download\)"'):
        other.run(other.estimate(model=other.model("metric_depth_vit_large_800k.pth")).out(2))


def test_a_download_without_a_network(bench, models):
    """The harness starts ComfyUI with HF_HUB_OFFLINE."""
    model = bench.model("metric_depth_vit_large_800k.pth (download)")
    with pytest.raises(HostError) as caught:
        bench.run(bench.estimate(model=model).out(2))
    sentence = str(caught.value)
    assert (
        "Download metric_depth_vit_large_800k.pth (1.65 GB) from https://huggingface.co/JUGGHM/" in sentence
    )
    assert f"put it into {models}" in sentence


def test_a_file_that_was_put_there_since(bench, models):
    """A workflow saved with the entry to download runs with the file, which is read again when it changes."""
    file = models / "metric_depth_vit_giant2_800k.pth"
    file.write_bytes((models / "tests" / "half.pth").read_bytes())
    try:
        found = bench.estimate(model=bench.model(file.name + " (download)"))
        with pytest.raises(HostError, match="incomplete"):
            bench.run(found.out(2))
        file.write_bytes((models / "tests" / "whole.pth").read_bytes())
        assert bench.run()[1]
        options = bench.comfy.object_info(LOAD)["input"]["required"]["file"][1]["options"]
        # the saved choice stays in the menu, which would show it in red otherwise
        assert {file.name, file.name + " (download)"} <= set(options)
        assert {TINY, "tests/relative", "metric_depth_vit_small_800k.pth (download)"} <= set(options)
    finally:
        file.unlink()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(bench, precision):
    found = bench.estimate(model=bench.model(precision=precision))
    _, texts = bench.run(found.out(2))
    assert f"{precision} on cpu" in "\n".join(texts.values())
    near, far = nearest_and_farthest(texts[found[0]])
    assert 0.01 <= near < far <= 300


# A Depth Pro of transformers, which ComfyUI's environment has.
DEPTH_PRO = """
import sys, torch
from transformers import DepthProConfig, DepthProForDepthEstimation, Dinov2Config
torch.manual_seed(0)
side = dict(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=32, patch_size=8)
network = DepthProForDepthEstimation(DepthProConfig(
    fusion_hidden_size=16, patch_size=32, intermediate_hook_ids=[3, 1], intermediate_feature_dims=[8, 8],
    scaled_images_feature_dims=[8, 8, 8], merge_padding_value=1, num_fov_head_layers=1, use_fov_model=True,
    image_model_config=Dinov2Config(**side), patch_model_config=Dinov2Config(**side),
    fov_model_config=Dinov2Config(**side),
))
with torch.no_grad():
    network.fov_model.head.layers[-1].bias.fill_(90.0)
    network.head.layers[-2].bias.fill_(0.6)
network.save_pretrained(sys.argv[1])
"""


def test_a_transformers_folder(bench, models):
    host = provision.host()
    env = {**os.environ, "PYTHONPATH": str(host.shim or ""), "HF_HUB_OFFLINE": "1"}
    command = [str(host.python), "-c", DEPTH_PRO, str(models / "tests" / "depth-pro")]
    subprocess.run(command, env=env, capture_output=True, check=True)
    found = bench.estimate(model=bench.model("tests/depth-pro"))
    camera = bench("FineDefocusCamera", **CAMERA)
    known = bench.estimate(bench.photo(name="b.png"), bench.model("tests/depth-pro"), camera=camera)
    ((normal,), _), texts = bench.run(found.out(2), known.out(2))
    assert normal.shape[:2] == (HEIGHT, WIDTH)
    # 90 degrees across: half the width
    assert re.search(r"Focal length 3\d px, estimated by the network", texts[found[0]])
    assert "Focal length 100 px, from the camera input." in texts[known[0]]
    assert any(text.startswith("Depth Pro, ") for text in texts.values())


def test_another_model_on_the_socket(bench):
    """What is on the wire is looked at, as types can be fooled by reroutes and other packs."""
    with pytest.raises(HostError, match="depth_model"):
        bench.run(bench.estimate(model=bench("FineDefocusFocusDistance", distance_m=1.0, scale=1.0)).out(2))


def test_without_kornia(bench):
    host = provision.host()
    ran = subprocess.run([str(host.python), "-c", "import kornia"], capture_output=True)
    found = bench.estimate(guided=True)
    if ran.returncode == 0:
        assert bench.run(found.out(2))[1]
    else:
        with pytest.raises(HostError, match="Guided upsampling needs kornia"):
            bench.run(found.out(2))


def test_it_stops_when_told_to(bench):
    clip = bench("RepeatImageBatch", image=bench.photo(name="stop.png"), amount=400)
    bench("PreviewImage", images=bench.estimate(clip, canvas="616 × 1064").out(2))
    prompt_id = bench.comfy.queue(bench)
    time.sleep(2.5)
    told = time.monotonic()
    bench.comfy.interrupt()
    entry = bench.comfy.wait(prompt_id, 60)
    assert any(event == "execution_interrupted" for event, _ in entry["status"]["messages"])
    assert time.monotonic() - told < 5
