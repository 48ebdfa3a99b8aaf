"""The whole way on generated photos, to packed sets and a report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from tests.training import curate_models, curate_photos
from training.__main__ import run
from training.config.load import ConfigError
from training.curate import command
from training.curate.card import decisions
from training.curate.flow import Engine, read_done
from training.curate.options import Curation, load
from training.curate.report import write_report
from training.data.packed import PackedSet, read_manifest, verify

REPO = Path(__file__).resolve().parents[2]
NO_NETWORKS = {name: {"skip": True} for name in ("blur", "photo", "caption")}


def config(tmp_path, **sections) -> Curation:
    given = {
        "photos": [str(tmp_path / "in")],
        "output": str(tmp_path / "out"),
        "unit_photos": 16,
        "rules": {"least_side_px": 48},
        "pack": {"source": "tiny", "size_px": 48},
        **NO_NETWORKS,
    }
    return Curation.model_validate(given | sections)


def rows(setting, stage):
    return list(read_done(setting, stage).rows(setting.output))


def packed_sets(setting) -> dict[str, int]:
    """Samples of the sets that are written."""
    folders = [Path(setting.output) / name for name in ("deep", "shallow")]
    return {folder.name: read_manifest(folder)["samples"] for folder in folders if folder.is_dir()}


def paths(setting, stage):
    return [row["path"] for row in rows(setting, stage)]


def test_every_odd_file_ends_in_a_table_with_a_reason(tmp_path):
    curate_photos.odd_files(tmp_path / "in")
    setting = config(tmp_path, exif={"max_megapixels": 50})
    command.run_all(setting, Engine())
    last = {
        row["path"]: (stage, row["kept"], row["reason"])
        for stage in setting.stages
        for row in rows(setting, stage)
    }
    assert last.pop("good.jpg") == ("pack", True, "")
    assert last.pop("really_png.jpg") == ("pack", True, "a PNG that is named .jpg")
    truncated = last.pop("truncated.jpg")
    assert truncated[:2] == ("duplicates", False)
    assert "cannot be decoded: image file is truncated" in truncated[2]
    assert last == {
        "empty.jpg": ("index", False, "empty: 0 bytes"),
        "link.jpg": ("index", False, "a symbolic link"),
        "dangling.jpg": ("index", False, "a symbolic link"),
        "loop": ("index", False, "a symbolic link"),
        "page.jpg": ("index", False, "not a picture, although it is named .jpg"),
        "notes.txt": ("index", False, "not a picture"),
        "caf\\xe9.jpg": ("index", False, "its name is not UTF-8"),
        "cmyk.jpg": ("exif", False, "colour mode CMYK, not RGB"),
        "sixteen.png": ("exif", False, "16 bits a channel"),
        "animated.gif": ("exif", False, "animated: 2 frames"),
        "animated.webp": ("exif", False, "animated: 2 frames"),
        "large.jpg": ("exif", False, "60 megapixels, more than 50"),
        "no_exif.jpg": ("rules", False, "no EXIF"),
    }  # fmt: skip


def test_options_of_odd_files(tmp_path):
    curate_photos.odd_files(tmp_path / "in")
    setting = config(
        tmp_path,
        index={"links": "follow", "wrong_extension": "drop"},
        exif={"colour": ["RGB", "CMYK"], "sixteen_bit": True, "max_megapixels": 200},
        duplicates={"skip": True},
    )
    for stage in ("index", "exif"):
        command.run_one(setting, stage, Engine())
    told = {row["path"]: row["reason"] for stage in ("index", "exif") for row in rows(setting, stage)}
    assert told["link.jpg"] == ""
    assert told["dangling.jpg"].startswith("cannot be read")
    assert told["loop"] == "not a regular file"
    assert told["really_png.jpg"] == "a PNG that is named .jpg"
    assert not any(row["kept"] for row in rows(setting, "index") if row["path"] == "really_png.jpg")
    assert {row["path"] for row in rows(setting, "exif") if row["kept"]} >= {
        "cmyk.jpg",
        "sixteen.png",
        "large.jpg",
    }


def test_the_whole_way_with_every_network(tmp_path):
    curate_photos.many(tmp_path / "in", 60)
    setting = config(
        tmp_path,
        blur={"source": "tiny", "crop_px": 32, "crops": 2},
        photo={"model": str(curate_models.internvl(tmp_path / "internvl")), "least_p_yes": 0.0},
        caption={"model": str(curate_models.blip2(tmp_path / "blip2")), "max_tokens": 5},
        report_samples=4,
    )
    command.run_all(setting, Engine())
    by_stage = [
        (len(found), sum(r["kept"] for r in found)) for found in (rows(setting, s) for s in setting.stages)
    ]
    assert by_stage[0] == (60, 60)
    # each stage has a row for every photo that the one before kept
    assert [seen for seen, _ in by_stage[1:]] == [kept for _, kept in by_stage[:-1]]
    packed = [row for row in rows(setting, "pack") if row["kept"]]
    assert packed
    assert sum(packed_sets(setting).values()) == len(packed)
    for name in packed_sets(setting):
        found = PackedSet(tmp_path / "out" / name)
        assert verify(found.path).problems == ()
        assert found.latent(0)[0].shape == (4, 6, 6)
        row = next(r for r in packed if r["key"] == found[0].key)
        assert found[0].caption == row["caption"]
        assert found.value(0, "p_yes") == row["p_yes"]
        assert found[0].f_number == row["f_number"]
        assert (found[0].f_number >= 10) == (name == "deep")
    page = write_report(setting)
    for name in packed_sets(setting):
        card = (tmp_path / "out" / name / "DATACARD.md").read_text()
        own = [row for row in packed if row["set"] == name]
        assert f"{len(own)} samples of" in card
        assert f"| pack | {len(packed)} | {by_stage[-1][0] - len(packed)} |" in card
        assert "split_f_number `10.0`" in card
        assert "model `internvl`" in card
        counted = re.search(r"f-number from.*\n.*\n\| samples \| (.*) \|", card)[1]
        assert sum(map(int, counted.split(" | "))) == len(own)
        makers = re.search(r"Makers: (.*)\.", card)[1]
        assert sum(int(maker.split()[-1]) for maker in makers.split(", ")) == len(own)
        assert verify(tmp_path / "out" / name).problems == ()
    told = page.read_text()
    for stage in setting.stages:
        assert f"<h2>{stage}</h2>" in told
    pictures = sorted(page.parent.glob("*.png"))
    assert {"stages.png", "rules_f_number.png", "exif_makers.png", "rules_dropped.png"} <= {
        p.name for p in pictures
    }
    for file in pictures:
        assert file.name in told
        with Image.open(file) as picture:
            assert len(picture.getcolors(1 << 24)) > 3  # not empty paper


def test_squares_keep_the_camera(tmp_path):
    """The angle of view: focal length over sensor of the square is fx over what it spans of the photo, px."""
    curate_photos.photo(tmp_path / "in" / "a.jpg", size=(120, 60), focal=30.0, focal_35=45, f_number=2.0)
    curate_photos.photo(tmp_path / "in" / "b.jpg", seed=1, size=(120, 60), orientation=6, f_number=11.0)
    setting = config(tmp_path)
    command.run_all(setting, Engine())
    diagonal = (120**2 + 60**2) ** 0.5 / (36**2 + 24**2) ** 0.5
    a = PackedSet(tmp_path / "out" / "shallow")[0]
    assert a.focal_mm / a.sensor_mm == pytest.approx(45 * diagonal / 60)
    assert (a.focal_mm, a.f_number, a.original, a.crop) == (30.0, 2.0, (60, 120), (0, 24))
    deep = PackedSet(tmp_path / "out" / "deep")
    assert (deep[0].original, deep[0].crop) == ((120, 60), (24, 0))  # shown upright
    with Image.open(tmp_path / "in" / "b.jpg") as stored:
        upright = stored.transpose(Image.Transpose.ROTATE_270).convert("RGB")
    square = upright.resize((48, 96), Image.Resampling.LANCZOS).crop((0, 24, 48, 72))
    wanted = (
        torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).reshape(48, 48, 3).permute(2, 0, 1)
    )
    # JPEG of quality 95 on a noisy picture
    assert (deep.image(0).int() - wanted.int()).abs().float().mean() < 4.0


def test_a_set_holds_at_most_what_is_wanted(tmp_path):
    curate_photos.many(tmp_path / "in", 60)
    setting = config(tmp_path, pack={"source": "tiny", "size_px": 48, "per_set": 3, "images": False})
    command.run_all(setting, Engine())
    assert packed_sets(setting) == {"deep": 3, "shallow": 3}
    before = [row for row in rows(setting, "duplicates") if row["kept"]]
    for name in ("deep", "shallow"):
        keys = sorted(row["key"] for row in before if row["set"] == name)
        assert sorted(sample.key for sample in PackedSet(tmp_path / "out" / name)) == keys[:3]
    reasons = {row["reason"] for row in rows(setting, "pack") if not row["kept"]}
    assert "more than the 3 wanted for the deep set" in reasons


def test_colours_are_converted_to_srgb(tmp_path):
    from PIL import ImageCms

    from training.curate.pixels import open_photo

    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB", 5000)).tobytes()
    picture = Image.new("RGB", (20, 20), (200, 100, 50))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.save(tmp_path / "srgb.png", icc_profile=srgb)
    assert open_photo(tmp_path / "srgb.png").getpixel((3, 3)) == (200, 100, 50)
    for name, profile in (("wrong", lab), ("damaged", b"no profile at all")):
        picture.save(tmp_path / f"{name}.png", icc_profile=profile)
        assert open_photo(tmp_path / f"{name}.png").getpixel((3, 3)) == (200, 100, 50)


def test_configs(tmp_path):
    shipped = load(REPO / "training" / "configs" / "curate.yaml")
    assert shipped.pack.per_set == 1_500_000
    assert Path(shipped.output).is_absolute()
    changed = load(REPO / "training" / "configs" / "curate.yaml", ["blur.skip=true", "rules.no_camera=keep"])
    assert (changed.blur.skip, changed.rules.no_camera) == (True, "keep")
    assert changed.chain("index") == shipped.chain("index")
    assert changed.chain("rules") != shipped.chain("rules")
    assert shipped.model_copy(update={"blur": shipped.blur.model_copy(update={"batch": 1})}).chain(
        "pack"
    ) == shipped.chain("pack")
    for text, said in (
        ("photos: [a]\noutput: b\nblurr: {}", "blurr"),
        ("photos: [a]\noutput: b\nrules: {skip: true}", "no curation goes without"),
        ("photos: [a]\noutput: b\nrules: {split_f_number: 60}", "must rise"),
        ("[", "not YAML"),
    ):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(ConfigError, match=said):
            load(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="not an override"):
        load(REPO / "training" / "configs" / "curate.yaml", ["blur.skip"])


def test_the_command_line(tmp_path, capsys):
    curate_photos.many(tmp_path / "in", 12)
    given = config(tmp_path).model_dump(mode="json")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(given))

    def call(stage, *more):
        return run(["curate", stage, "--config", str(tmp_path / "c.yaml"), *more])

    assert call("index") == 0
    assert call("exif", "--set", "exif.max_megapixels=0.001") == 0
    assert {r["reason"][:15] for r in rows(config(tmp_path, exif={"max_megapixels": 0.001}), "exif")} == {
        "0.00614 megapix"
    }
    with pytest.raises(ConfigError, match=r"exif in .* was run with other settings"):
        call("rules")
    with pytest.raises(ValueError, match=r"blur\.skip is on"):
        call("blur")
    assert call("all") == 0
    assert call("report") == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / "report" / "index.html")] * 2


def test_nothing_in_comes_out_as_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    setting = config(tmp_path)
    command.run_all(setting, Engine())
    assert packed_sets(setting) == {}
    assert write_report(setting).is_file()
    curate_photos.photo(tmp_path / "in" / "a.jpg", f_number=11.0)
    command.run_all(setting, Engine())
    assert packed_sets(setting) == {"deep": 1}
    (tmp_path / "in" / "a.jpg").unlink()
    command.run_all(setting, Engine())
    assert packed_sets(setting) == {}  # the set of photos that are gone is gone


def test_missing_folders_are_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        command.run_one(config(tmp_path), "index", Engine())
    (tmp_path / "in").mkdir()
    curate_photos.photo(tmp_path / "in" / "a.jpg")
    for stage, said in (("blur", "blur.weights"), ("photo", "photo.model"), ("caption", "caption.model")):
        setting = config(tmp_path, duplicates={"skip": True}, **{stage: {}})
        with pytest.raises(ValueError, match=said):
            command.run_all(setting, Engine())


def test_a_card_has_no_folders_but_whole_names_of_the_hub(tmp_path):
    hub = {"model": "maker/network", "revision": "0123abc", "question": "A photo and/or a drawing?"}
    folders = {"caption": {"model": str(tmp_path / "blip2")}, "pack": {"vae": str(tmp_path / "vae")}}
    told = "\n".join(decisions(config(tmp_path, photo=hub, **folders)))
    assert "model `maker/network`, revision `0123abc`, question `A photo and/or a drawing?`" in told
    assert "model `blip2`, revision –" in told
    assert "vae `vae`" in told
    assert str(tmp_path) not in told
