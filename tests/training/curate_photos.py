"""Small photos with real EXIF blocks, and files that are none."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

MAKE, MODEL, ORIENTATION = 0x010F, 0x0110, 0x0112
EXPOSURE, F_NUMBER, SHUTTER_APEX, APERTURE_APEX = 0x829A, 0x829D, 0x9201, 0x9202
FOCAL, FOCAL_35, LENS = 0x920A, 0xA405, 0xA434
CAMERAS = (
    ("Canon", "Canon EOS R5", "RF50mm F1.2 L USM"),
    ("NIKON CORPORATION", "NIKON Z 8", "NIKKOR Z 85mm f/1.8 S"),
    ("SONY", "ILCE-7M4", "FE 35mm F1.8"),
    ("FUJIFILM", "X-T5", "XF23mmF1.4 R"),
    ("Apple", "iPhone 12", "iPhone 12 back camera 4.2mm f/1.6"),
    ("samsung", "SM-G991B", ""),
)
F_NUMBERS = (1.4, 1.8, 2.8, 4.0, 5.6, 8.0, 10.0, 11.0, 16.0, 22.0)


def scene(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """Coloured shapes of random sizes: no two look the same."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 255, (6, 8, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture).astype(np.int16) + draw.integers(-12, 12, (height, width, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def exif(
    f_number=2.8, focal=50.0, exposure=0.004, camera=0, focal_35=50, orientation=1, apex=False
) -> Image.Exif:
    """The block of one of the cameras; None leaves a tag out; apex: as APEX values alone."""
    make, model, lens = CAMERAS[camera] if camera is not None else (None, None, None)
    block = Image.Exif()
    for tag, value in ((MAKE, make), (MODEL, model), (ORIENTATION, orientation)):
        if value:
            block[tag] = value
    inner = block.get_ifd(0x8769)
    if apex:
        inner[APERTURE_APEX] = IFDRational(round(2000 * np.log2(f_number)), 1000)
        inner[SHUTTER_APEX] = IFDRational(round(-1000 * np.log2(exposure)), 1000)
    else:
        if f_number is not None:
            inner[F_NUMBER] = IFDRational(round(10 * f_number), 10)
        if exposure is not None:
            inner[EXPOSURE] = IFDRational(round(1e6 * exposure), 1_000_000)
    for tag, value in ((FOCAL, focal and IFDRational(round(focal * 10), 10)), (FOCAL_35, focal_35)):
        if value:
            inner[tag] = value
    if lens:
        inner[LENS] = lens
    return block


def photo(path: Path, seed: int = 0, size=(96, 64), quality: int = 90, **settings) -> Path:
    """A JPEG with EXIF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scene(seed, *size).save(path, "JPEG", quality=quality, exif=exif(**settings))
    return path


def many(folder: Path, count: int, seed: int = 0, size=(96, 64)) -> Path:
    """`count` photos of all cameras, a hundred in a folder; those of one picture differ in a comment."""
    choose = random.Random(seed)
    bodies = [scene(seed + k, *size) for k in range(min(count, 40))]
    encoded = {}
    for number in range(count):
        body, n, camera = number % len(bodies), choose.choice(F_NUMBERS), choose.randrange(len(CAMERAS))
        settings = (body, n, camera)
        if settings not in encoded:
            buffer = io.BytesIO()
            block = exif(n, focal=35.0 + body, exposure=choose.choice([0.001, 0.01, 0.5]), camera=camera)
            bodies[body].save(buffer, "JPEG", exif=block)
            encoded[settings] = buffer.getvalue()
        comment = f"photo {number}".encode()
        marker = b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
        content = encoded[settings]
        path = folder / f"{number // 100:03d}" / f"IMG_{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[:-2] + marker + content[-2:])
    return folder


def odd_files(folder: Path) -> Path:
    """One file of every kind that goes wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = photo(folder / "good.jpg", seed=1).read_bytes()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    scene(2).convert("CMYK").save(folder / "cmyk.jpg", exif=exif())
    (folder / "sixteen.png").write_bytes(_png16(96, 64))
    frames = [scene(k) for k in (3, 4)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "animated.webp", save_all=True, append_images=frames[1:], exif=exif())
    Image.new("RGB", (10_000, 6_000), (9, 9, 9)).save(folder / "large.jpg", exif=exif())
    scene(5).save(folder / "really_png.jpg", "PNG", exif=exif())
    (folder / "page.jpg").write_text("<!doctype html><title>404</title>")
    (folder / "notes.txt").write_text("notes")
    os.symlink(folder / "good.jpg", folder / "link.jpg")
    os.symlink(folder / "nowhere.jpg", folder / "dangling.jpg")
    os.symlink(folder, folder / "loop")
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(whole)
    (folder / "no_exif.jpg").write_bytes(_jpeg(scene(6)))
    return folder


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    return buffer.getvalue()


def _png16(width: int, height: int) -> bytes:
    """Colour with 16 bits a channel, which Pillow cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    line = b"\0" + b"".join(struct.pack(">HHH", 500 * x, 60_000 - 400 * x, 7) for x in range(width))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(line * height))
        + chunk(b"IEND", b"")
    )
