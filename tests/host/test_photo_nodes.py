"""Camera from Photo and Save Photo in the real ComfyUI: files as people have them, and files for good."""

from __future__ import annotations

import io
import json
import re
import struct

import numpy as np
import pytest
from PIL import Image

from lens_models.photo.exif import read_exif
from tools import provision
from tools.provision import REPO
from tools.server import ComfyHost, HostError
from tools.workflow import Graph

pytestmark = pytest.mark.host

F_NUMBER, DISTANCE, FOCAL, FOCAL_35, LENS, EXPOSURE = 33437, 37382, 37386, 41989, 42036, 33434
TAGS = {F_NUMBER: 1.8, FOCAL: 6.9, FOCAL_35: 26, DISTANCE: 0.5, EXPOSURE: 1 / 250, LENS: "main"}
CAMERA = {
    "aperture": "free", "f_number": 2.8, "focal_mm": 85.0, "sensor": "Full frame 36 × 24 mm",
    "sensor_width_mm": 36.0, "sensor_height_mm": 24.0, "framing": "crop to the picture",
}  # fmt: skip
SWEEP = {"sweep": "list", "start": 1.8, "end": 22.0, "step": "1 stop", "f_numbers": "1.8, 2.8, 2.8"}
SAVE = {"format": "PNG", "quality": 92, "values_in_name": True}
WORKFLOW = {"nodes": [], "links": [], "version": 0.4, "extra": {"note": "größer"}}


def picture(width=48, height=32, mode="RGB"):
    """Red grows to the right, green downwards, so that every turn of it looks different."""
    y, x = np.mgrid[:height, :width]
    values = np.stack([x * 255 // width, y * 255 // height, 0 * x + 40], -1).astype(np.uint8)
    return Image.fromarray(values).convert(mode)


def with_exif(tags, orientation=None):
    data = Image.Exif()
    if orientation:
        data[274] = orientation
    data[271], data[272] = "Apple", "iPhone 12"
    data.get_ifd(0x8769).update(tags)
    return data


class Darkroom(Graph):
    """Photos into ComfyUI's input folder, and what a run says, shows and saves."""

    def __init__(self, comfy, tmp_path):
        super().__init__()
        self.comfy, self.tmp_path = comfy, tmp_path

    def put(self, name, image=None, content=None, **options):
        path = self.tmp_path / name
        if content is not None:
            path.write_bytes(content)
        else:
            image.save(path, **options)
        return self.comfy.upload(path, f"{self.tmp_path.name}_{name}")

    def seen(self, file, **values):
        """(text on the node, its picture, what Load Image makes of the file, distance_m)"""
        photo = self("FineDefocusCameraFromPhoto", file=file, **values)
        shown = self("PreviewImage", images=photo)
        distance = self("PreviewAny", source=photo.out(3))
        core = self("PreviewImage", images=self("LoadImage", image=file))
        outputs = self.comfy.prompt(self)["outputs"]
        both = [[self.view(i) for i in outputs[n[0]]["images"]] for n in (shown, core)]
        return "\n".join(outputs[photo[0]]["text"]), *both, float(outputs[distance[0]]["text"][0])

    def view(self, named):
        return np.asarray(Image.open(io.BytesIO(self.comfy.view(named))))

    def save(self, images, extra_pnginfo=None, **values):
        """(text on the node, [(name, bytes)]); the workflow is sent as the editor sends it."""
        node = self("FineDefocusSavePhoto", images=images, **{**SAVE, **values})
        body = {"prompt": self, "client_id": self.comfy.client_id}
        if extra_pnginfo:
            body["extra_data"] = {"extra_pnginfo": extra_pnginfo}
        entry = self.comfy.wait(self.comfy.post("/prompt", body)["prompt_id"])
        assert entry["status"]["status_str"] == "success", entry["status"]["messages"][-1]
        said = entry["outputs"][node[0]]
        return "\n".join(said["text"]), [(i["filename"], self.comfy.view(i)) for i in said["images"]]

    def colour(self, count=1, width=48, height=32):
        return self("EmptyImage", width=width, height=height, batch_size=count, color=0x4080C0)

    def camera(self, swept=False, **values):
        camera = self("FineDefocusCamera", **{**CAMERA, **values})
        return self("FineDefocusApertureSweep", camera=camera, **SWEEP) if swept else camera


@pytest.fixture
def darkroom(comfy, tmp_path):
    return Darkroom(comfy, tmp_path)


def prefix(tmp_path, name="photo"):
    """A folder of the test's own, because the output folder is everyone's."""
    return f"{tmp_path.name}/{name}"


# ------------------------------------------------------------------------------- Camera from Photo


def test_a_phone_photo_tells_its_camera(darkroom):
    file = darkroom.put("a.jpg", picture(80, 60), exif=with_exif(TAGS), quality=95)
    text, shown, core, distance = darkroom.seen(file)
    # 26 mm on 43.27 mm is 6.9 mm on 11.48 mm, of which 4:3 makes 9.19 mm wide
    assert text == (
        "Apple iPhone 12, main\nf/1.8, 6.9 mm, 1/250 s; 80 × 60 px on 9.19 mm of sensor\nSubject at 50 cm"
    )
    assert distance == 0.5
    np.testing.assert_array_equal(shown, core)


def test_a_photo_without_exif_says_what_is_assumed_and_takes_what_is_given(darkroom):
    file = darkroom.put("a.png", picture())
    text, _, _, distance = darkroom.seen(file)
    assert "f/2.8, 50 mm; 48 × 32 px on 36 mm of sensor" in text
    for sentence in ("no aperture: f/2.8 assumed", "no focal length: 50 mm on full", "so distance_m is 0"):
        assert sentence in text
    assert distance == 0.0
    given = {"f_number": 4.0, "focal_mm": 25.0, "sensor": "Micro Four Thirds 17.3 × 13 mm", "distance_m": 3.0}
    text, _, _, distance = darkroom.seen(file, **given)
    # the largest 3:2 crop of 17.3 × 13 mm spans all of its width
    assert text == "Camera unknown\nf/4, 25 mm; 48 × 32 px on 17.3 mm of sensor\nSubject at 3 m"
    assert distance == 3.0


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_every_orientation_comes_upright(darkroom, suffix):
    options = {"jpg": {"quality": 100, "subsampling": 0}, "png": {}, "webp": {"lossless": True}}[suffix]
    upright = picture()
    # how the stored picture is made from the upright one, so that the tag turns it back
    turns = {
        1: [], 2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM], 5: [Image.Transpose.TRANSPOSE], 6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE], 8: [Image.Transpose.ROTATE_270],
    }  # fmt: skip
    shown = {}
    for orientation, steps in turns.items():
        stored = upright
        for step in steps:
            stored = stored.transpose(step)
        file = darkroom.put(f"o{orientation}.{suffix}", stored, exif=with_exif(TAGS, orientation), **options)
        photo = darkroom("FineDefocusCameraFromPhoto", file=file)
        shown[orientation] = (photo, darkroom("PreviewImage", images=photo))
    outputs = darkroom.comfy.prompt(darkroom)["outputs"]
    for orientation, (photo, preview) in shown.items():
        seen = darkroom.view(outputs[preview[0]]["images"][0]).astype(int)
        # JPEG moves a smooth ramp by a few steps; a wrong turn would be off by a hundred
        np.testing.assert_allclose(seen, np.asarray(upright), atol=6, err_msg=f"orientation {orientation}")
        assert "48 × 32 px on 9.55 mm" in outputs[photo[0]]["text"][0], orientation


def test_odd_files_are_as_load_image_gives_them(darkroom):
    alpha = picture(mode="RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    deep = Image.fromarray((np.arange(32 * 48).reshape(32, 48) * 40).astype(np.uint16))
    frames = [picture(), picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    files = [
        darkroom.put("cmyk.jpg", picture(mode="CMYK"), quality=95),
        darkroom.put("grey.png", picture(mode="L")),
        darkroom.put("deep.png", deep),
        darkroom.put("palette.png", picture().quantize(16)),
        darkroom.put("alpha.png", alpha),
        darkroom.put("moving.webp", frames[0], save_all=True, append_images=frames[1:], lossless=True),
        darkroom.put("moving.gif", frames[0], save_all=True, append_images=frames[1:]),
    ]
    made, counts = [], set()
    for file in files:
        pair = darkroom("FineDefocusCameraFromPhoto", file=file), darkroom("LoadImage", image=file)
        images = [darkroom("PreviewImage", images=node) for node in pair]
        masks = [darkroom("PreviewImage", images=darkroom("MaskToImage", mask=n.out(1))) for n in pair]
        made.append((file, images, masks))
    outputs = darkroom.comfy.prompt(darkroom)["outputs"]
    for file, *pairs in made:
        for ours, core in pairs:
            ours, core = ([darkroom.view(i) for i in outputs[n[0]]["images"]] for n in (ours, core))
            np.testing.assert_array_equal(ours, core, err_msg=file)
            counts.add(len(ours))
    # Load Image shows some moving pictures frame by frame
    assert counts == {1, 2}


def test_a_transparent_turned_photo_keeps_its_mask(darkroom):
    alpha = picture(mode="RGBA")
    alpha.paste((0, 0, 0, 0), (0, 0, 24, 32))
    file = darkroom.put("a.png", alpha, exif=with_exif(TAGS, 6))
    photo = darkroom("FineDefocusCameraFromPhoto", file=file)
    mask = darkroom("PreviewImage", images=darkroom("MaskToImage", mask=photo.out(1)))
    seen = darkroom.view(darkroom.comfy.prompt(darkroom)["outputs"][mask[0]]["images"][0])
    assert seen.shape[:2] == (48, 32)
    # turned clockwise, the left half comes up; white is transparent
    assert seen[:24].min() == 255
    assert seen[24:].max() == 0


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_photo_cut_short_is_shown_with_a_sentence(darkroom, orientation):
    noise = np.random.default_rng(1).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    whole = io.BytesIO()
    Image.fromarray(noise).save(whole, "JPEG", exif=with_exif(TAGS, orientation), quality=95)
    file = darkroom.put("a.jpg", content=whole.getvalue()[: len(whole.getvalue()) * 2 // 3])
    text, (shown,), _, _ = darkroom.seen(file)
    assert "a.jpg is cut short" in text
    assert "f/1.8, 6.9 mm" in text
    assert shown.shape[:2] == ((64, 96) if orientation == 1 else (96, 64))


def test_what_is_no_picture_is_a_sentence(darkroom):
    file = darkroom.put("page.jpg", content=b"<!doctype html>" * 40)
    darkroom("PreviewImage", images=darkroom("FineDefocusCameraFromPhoto", file=file))
    with pytest.raises(HostError, match=r"page\.jpg cannot be opened as a picture .* save it again as JPEG"):
        darkroom.comfy.prompt(darkroom)
    missing = Graph()
    missing("PreviewImage", images=missing("FineDefocusCameraFromPhoto", file="nothing.jpg"))
    with pytest.raises(HostError, match=r"nothing\.jpg is not in ComfyUI's input folder: put it there"):
        darkroom.comfy.prompt(missing)


# -------------------------------------------------------------------------------------- Save Photo


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", "png"), ("WebP", "webp"), ("JPEG", "jpg")])
def test_what_is_saved_comes_back_as_the_same_camera(darkroom, tmp_path, kind, suffix):
    camera = darkroom.camera(sensor="Micro Four Thirds 17.3 × 13 mm", f_number=1.7, focal_mm=42.5)
    _, ((name, content),) = darkroom.save(
        darkroom.colour(), format=kind, camera=camera, focus=1.53, filename_prefix=prefix(tmp_path)
    )
    assert name == f"photo_f1.7_1.53m_00001_.{suffix}"
    text, (shown,), _, distance = Darkroom(darkroom.comfy, tmp_path).seen(
        darkroom.put(f"back.{suffix}", content=content)
    )
    assert text == "Camera unknown\nf/1.7, 42.5 mm; 48 × 32 px on 17.3 mm of sensor\nSubject at 1.53 m"
    assert distance == 1.53
    # flat colour: a step or two in JPEG and lossy WebP
    np.testing.assert_allclose(shown.astype(int), np.full_like(shown, 1) * [0x40, 0x80, 0xC0], atol=3)


def test_a_sweep_is_one_file_each_with_its_own_values(darkroom, tmp_path):
    text, files = darkroom.save(
        darkroom.colour(3),
        format="JPEG",
        camera=darkroom.camera(swept=True),
        filename_prefix=prefix(tmp_path),
        focus=darkroom("FineDefocusFocusDistance", distance_m=2.5, scale=1.0),
    )
    names = [f"photo_f{n}_2.5m_{i:05}_.jpg" for n, i in ((1.8, 1), (2.8, 1), (2.8, 2))]
    assert [name for name, _ in files] == names
    assert text.startswith("\n".join(names))
    assert "JPEG cannot hold the workflow" in text
    for name, content in files:
        path = tmp_path / name
        path.write_bytes(content)
        exif = read_exif(path)
        assert exif.f_number == float(name[7:10])
        assert (exif.focal_mm, exif.focal_35mm, exif.subject_distance_m) == (85.0, 85.0, 2.5)


def test_saving_again_overwrites_nothing(darkroom, tmp_path):
    where = prefix(tmp_path, "a")
    names = []
    for value in (1, 2):
        again = Darkroom(darkroom.comfy, tmp_path)
        image = again("EmptyImage", width=8, height=8, batch_size=2, color=value)
        names += [name for name, _ in again.save(image, filename_prefix=where)[1]]
    assert names == [f"a_0000{i}_.png" for i in (1, 2, 3, 4)]


def test_settings_of_other_pictures_and_foreign_folders_are_sentences(darkroom, tmp_path):
    def refused(words, count=1, **values):
        graph = Darkroom(darkroom.comfy, tmp_path)
        more = {name: make(graph) for name, make in values.items()}
        where = {"filename_prefix": prefix(tmp_path)}
        graph("FineDefocusSavePhoto", images=graph.colour(count), **{**SAVE, **where, **more})
        with pytest.raises(HostError, match=words):
            darkroom.comfy.prompt(graph)

    refused("3 cameras do not go with 1 picture", camera=lambda g: g.camera(swept=True))
    refused("3 cameras do not go with 2 pictures", 2, camera=lambda g: g.camera(swept=True))
    refused("outside the output folder", filename_prefix=lambda g: "../../elsewhere/a")
    refused(
        "cannot be written into .* name too long",
        filename_prefix=lambda g: f"{tmp_path.name}/b" + 300 * "b",
    )


def test_a_batch_that_fails_half_way_says_what_was_saved(darkroom, tmp_path):
    if not getattr(darkroom.comfy, "base", None):
        pytest.skip("the output folder of the ComfyUI at COMFYUI_URL is not ours")
    folder = darkroom.comfy.base / "output" / tmp_path.name
    folder.mkdir(parents=True)
    (folder / "part2").write_bytes(b"a file where a folder is wanted")
    where = {"filename_prefix": f"{tmp_path.name}/part%batch_num%/a"}
    darkroom("FineDefocusSavePhoto", images=darkroom.colour(4), **{**SAVE, **where})
    with pytest.raises(
        HostError, match=r"The folder of .*part2/a cannot be made: .*2 of 4 pictures were saved"
    ):
        darkroom.comfy.prompt(darkroom)
    written = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    assert written == ["part0/a_00001_.png", "part1/a_00001_.png"]


def test_the_texts_of_a_png_and_a_webp_are_cores_own(darkroom, tmp_path):
    """Byte for byte what core's savers write for the same graph, in the places the editor looks at."""
    image = darkroom.colour()
    core = darkroom("SaveImage", images=image, filename_prefix=prefix(tmp_path, "core"))
    extra = {"workflow": WORKFLOW, "seed_notes": [1]}
    for kind in ("PNG", "WebP"):
        darkroom("FineDefocusSavePhoto", images=image, **{**SAVE, "format": kind, "filename_prefix": "x"})
    body = {"prompt": darkroom, "client_id": "t", "extra_data": {"extra_pnginfo": extra}}
    entry = darkroom.comfy.wait(darkroom.comfy.post("/prompt", body)["prompt_id"])
    files = [
        darkroom.comfy.view(o["images"][0]) for _, o in sorted(entry["outputs"].items()) if "images" in o
    ]
    core, png, webp = files
    assert png_texts(png) == png_texts(core)
    assert set(png_texts(png)) == {"prompt", "workflow", "seed_notes"}
    assert webp_texts(webp) == png_texts(core)
    assert json.loads(png_texts(png)["workflow"]) == WORKFLOW


def png_texts(content: bytes) -> dict[str, str]:
    """Keyword and text of every tEXt chunk."""
    texts, at = {}, 8
    while at < len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        if kind == b"tEXt":
            name, _, text = content[at + 8 : at + 8 + length].partition(b"\0")
            texts[name.decode()] = text.decode()
        at += 12 + length
    return texts


def webp_texts(content: bytes) -> dict[str, str]:
    """What ASCII tags of the first EXIF directory hold as `name:text`."""
    exif = Image.open(io.BytesIO(content)).getexif()
    texts = (value for tag, value in exif.items() if isinstance(value, str) and ":" in value)
    return dict(text.split(":", 1) for text in texts)


def test_disable_metadata_is_respected(comfy, tmp_path):
    with ComfyHost(provision.host(), arguments=("--disable-metadata",)) as private:
        for kind, numbered in (("PNG", "00001_.png"), ("WebP", "00002_.webp"), ("JPEG", "00003_.jpg")):
            again = Darkroom(private, tmp_path)
            text, ((name, content),) = again.save(
                again.colour(), {"workflow": WORKFLOW}, format=kind, camera=again.camera(), focus=2.0,
                filename_prefix="p",
            )  # fmt: skip
            image = Image.open(io.BytesIO(content))
            assert name == f"p_f2.8_2m_{numbered}"
            assert dict(image.getexif()) == {}
            assert not {"prompt", "workflow"} & set(image.info)
            assert "--disable-metadata: neither camera nor workflow" in text


def test_every_photo_node_has_a_help_page_and_translations(comfy):
    for name in ("FineDefocusCameraFromPhoto", "FineDefocusSavePhoto"):
        page = (REPO / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
        groups = comfy.object_info(name)["input"]
        inputs = [*groups["required"], *groups.get("optional", {})]
        assert re.findall(r"^\| (\w+) \|", page, re.MULTILINE)[1 : 1 + len(inputs)] == inputs
        for words in sorted((REPO / "locales").glob("*/nodeDefs.json")):
            assert set(json.loads(words.read_text(encoding="utf-8"))[name]["inputs"]) == set(inputs)
