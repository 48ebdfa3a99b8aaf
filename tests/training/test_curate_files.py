"""Real camera files and odd ones: every file ends in the table with a reason, and nothing hangs."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from lens_models.photo.exif import read_exif
from tools import provision
from training.curate.exif import HeaderWorker, header
from training.curate.index import format_of
from training.curate.options import Curation, Exif
from training.curate.timeout import call_within

DEBIAN = "golang-github-rwcarlsen-goexif-dev"
PIEXIF, PIEXIF_SHA = "piexif==1.1.3", "83cb35c606bf3a1ea1a8f0a25cb42cf17e24353fd82e87ae3884e74a302a5f1b"
#: exiftool's names in the groups where cameras write these tags.
NAMES = {
    "f_number": "ExifIFD:FNumber",
    "exposure_s": "ExifIFD:ExposureTime",
    "focal_mm": "ExifIFD:FocalLength",
    "focal_35mm": "ExifIFD:FocalLengthIn35mmFormat",
    "make": "IFD0:Make",
    "model": "IFD0:Model",
    "lens": "ExifIFD:LensModel",
    "orientation": "IFD0:Orientation",
}


@pytest.fixture(scope="module")
def cameras():
    """Files of real cameras: 61 headers and 3 corrupt ones of Debian's package, 14 photos of piexif's."""
    folder = provision.CACHE / "cameras"
    try:
        _fetch_debian(DEBIAN, folder / "goexif")
        _fetch_piexif(folder)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no network, or no apt: the camera files cannot be fetched ({error})")
    kinds = (".jpg", ".exif", ".tif")
    files = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in kinds]
    assert len(files) >= 75
    return files


@pytest.fixture(scope="module")
def exiftool():
    """The command that runs exiftool: the system's, or Debian's package unpacked."""
    if found := shutil.which("exiftool"):
        return [found]
    folder = provision.CACHE / "exiftool"
    try:
        _fetch_debian("libimage-exiftool-perl", folder)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"exiftool is not installed and cannot be fetched: nothing to compare with ({error})")
    return ["perl", "-I", str(folder / "usr" / "share" / "perl5"), str(folder / "usr" / "bin" / "exiftool")]


def _fetch_debian(name: str, folder: Path) -> None:
    """Unpack a package of Debian's without installing it."""
    if folder.is_dir():
        return
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    options = {"cwd": part, "capture_output": True, "timeout": 120}
    if subprocess.run(["apt-get", "download", name], check=False, **options).returncode:
        # a fresh machine has no lists of packages
        subprocess.run(["apt-get", "update"], check=True, **options)
        subprocess.run(["apt-get", "download", name], check=True, **options)
    (package,) = part.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), "files"], check=True, **options)
    (part / "files").rename(folder)
    shutil.rmtree(part)


def _fetch_piexif(folder: Path) -> None:
    if (folder / "piexif").is_dir():
        return
    part = folder / "source"
    part.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    arguments = ["--no-binary", ":all:", "-d", str(part), PIEXIF]
    subprocess.run([*pip, *arguments], check=True, capture_output=True, timeout=1200)
    (archive,) = [p for p in part.iterdir() if p.is_file()]
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == PIEXIF_SHA
    opened = zipfile.ZipFile(archive) if archive.suffix == ".zip" else tarfile.open(archive)  # noqa: SIM115
    with opened:
        opened.extractall(part / "files")
    (part / "files").rename(folder / "piexif")


def test_real_camera_files_never_hang_or_raise(cameras):
    found = {}
    for path in cameras:
        start = time.monotonic()
        found[path] = call_within(15.0, read_exif, path)
        assert time.monotonic() - start < 5.0, path
    corrupt = [path for path in cameras if path.parent.name == "corrupt"]
    assert len(corrupt) == 3
    # Pillow opens 12 of the package's files and the block in the others is read all the same
    assert sum(settings.f_number is not None for settings in found.values()) >= 50
    for settings in found.values():
        assert settings.f_number is None or 0.5 < settings.f_number < 100.0


def test_settings_are_those_of_exiftool(cameras, exiftool, tmp_path):
    """exiftool reads nothing of a file without a picture behind the tags: those are given an end."""
    copies = {}
    for path in cameras:
        copy = tmp_path / f"{len(copies):03d}{path.suffix}"
        copy.write_bytes(with_an_end(path.read_bytes()))
        copies[copy.name] = path
    flags = [f"-{name}" for name in NAMES.values()]
    command = [*exiftool, "-j", "-n", "-G1", *flags, *sorted(map(str, tmp_path.iterdir()))]
    told = json.loads(subprocess.run(command, capture_output=True, timeout=1200, check=False).stdout)
    compared = 0
    for theirs in told:
        path = copies[Path(theirs["SourceFile"]).name]
        ours = read_exif(path)
        for name, tag in NAMES.items():
            wanted, got = theirs.get(tag), getattr(ours, name)
            if wanted in (None, "", 0, "undef", "inf"):
                continue
            compared += 1
            if isinstance(got, str):  # exiftool writes the Nokia 6350 as a number
                assert got == " ".join(str(wanted).split()), (path.name, name)
            else:  # exiftool prints ten digits
                assert got == pytest.approx(wanted, rel=1e-6), (path.name, name)
    assert compared >= 250


def with_an_end(content: bytes) -> bytes:
    """A header alone, cut where its length says and closed; anything else as it is."""
    end = 4 + int.from_bytes(content[4:6], "big")
    alone = content[2:4] == b"\xff\xe1" and 0 <= len(content) - end < 16
    return content[:end] + b"\xff\xd9" if alone else content


def test_the_timeout_stops_what_swallows_exceptions():
    def stubborn():
        while True:
            try:
                while True:
                    pass
            except Exception:
                continue

    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"longer than 0\.2 s"):
        call_within(0.2, stubborn)
    assert time.monotonic() - start < 2.0
    assert call_within(5.0, len, "four") == 4


def test_the_timeout_works_in_a_thread():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(call_within, 5.0, len, "four").result() == 4
        with pytest.raises(TimeoutError):
            pool.submit(call_within, 0.1, time.sleep, 1.0).result()
        with pytest.raises(ZeroDivisionError):
            pool.submit(call_within, 5.0, lambda: 1 / 0).result()


def test_the_header_stage_says_when_a_file_takes_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr("training.curate.exif.header", lambda *_: time.sleep(30))
    config = Curation(photos=(str(tmp_path),), output=str(tmp_path / "out"), exif=Exif(timeout_s=0.1))
    (row,) = HeaderWorker(config).judge([{"root": 0, "path": "a.jpg", "reason": ""}])
    assert row == {"kept": False, "reason": "its header cannot be read: took longer than 0.1 s"}


def test_headers_of_real_files_are_rows(cameras):
    for path in cameras:
        try:
            row = header(path, Exif())
        except OSError:  # what the stage turns into a reason
            continue
        assert row["kept"] or row["reason"], path


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        ("474946383961", "GIF"),
        ("49492a0008", "TIFF"),
        ("524946460000000057454250", "WEBP"),
        ("000000186674797068656963", "HEIF"),
        ("0000001c6674797061766966", "AVIF"),
        ("000000186674797069736f6d", None),  # a film
        ("424d" + 12 * "00" + "28000000", "BMP"),
        ("424d" + 12 * "65" + "28636f6d", None),  # text that starts with BM
        ("", None),
    ],
)
def test_formats_by_their_first_bytes(start, kind):
    assert format_of(bytes.fromhex(start)) == kind
