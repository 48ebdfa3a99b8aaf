"""Camera from Photo: a photo, and its EXIF as CAMERA."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image, ImageOps, ImageSequence
from torch import Tensor

import nodes as comfy_nodes

from ...lens_models.photo.camera import camera_of_photo
from ...lens_models.photo.exif import read_exif
from ..shared.files import fingerprint, is_there
from ..shared.images import picture_size, to_host
from ..shared.inputs import f_number, metres, node_schema, number
from ..shared.messages import messages_ui
from ..shared.sockets import CAMERA
from .camera import SENSORS

AS_WRITTEN = "from the photo"
#: Files that hold several pictures of one scene, of which the first is the photo.
ONE_PHOTO = ("MPO",)
#: Side of the mask that Load Image gives for a picture without transparency, px.
NO_MASK_PX = 64


def _photos() -> list[str]:
    folder = folder_paths.get_input_directory()
    names = [name for name in os.listdir(folder) if os.path.isfile(os.path.join(folder, name))]
    return sorted(folder_paths.filter_files_content_types(names, ["image"]))


class CameraFromPhotoNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusCameraFromPhoto",
            display_name="Camera from Photo",
            category="fine defocus/camera",
            description="Loads a photo and, from its EXIF, the camera that took it: aperture, focal length, "
            "sensor and the distance to the subject.",
            search_aliases="exif, load image, metadata, photo, lens, aperture, focal length",
            inputs=[
                io.Combo.Input("file", _photos(), upload=io.UploadType.image),
                "Photo in ComfyUI's input folder, as the camera wrote it: most editors and web sites take "
                "the EXIF out.",
                f_number("f_number", 0.0, least=0.0, optional=True),
                "F-number instead of the photo's own. 0 takes the photo's, or f/2.8 if it has none.",
                number("focal_mm", 0.0, 0.0, 2000.0, 1.0, optional=True),
                "Focal length in mm instead of the photo's own, as engraved on the lens. 0 takes the "
                "photo's, or 50 mm if it has none.",
                io.Combo.Input("sensor", [AS_WRITTEN, *SENSORS], default=AS_WRITTEN, optional=True),
                "Sensor the photo was taken with. 'from the photo' finds it from the 35-mm equivalent or "
                "the focal plane's resolution, or takes full frame if it has neither.",
                metres("distance_m", 0.0, optional=True),
                "Distance to the subject in metres instead of the photo's own. 0 takes the photo's, which "
                "few cameras write.",
            ],
            outputs=[
                io.Image.Output("image", tooltip="The photo, turned upright."),
                io.Mask.Output("mask", tooltip="1 where the photo is transparent, as in Load Image."),
                CAMERA.Output("camera", tooltip="The camera that took the photo."),
                io.Float.Output("distance_m"),
                "Distance to the subject in metres; inf = infinity, 0 = unknown.",
            ],
        )

    @classmethod
    def validate_inputs(cls, file) -> bool | str:
        unchosen = "Choose a photo: upload one, or put it into ComfyUI's input folder."
        return is_there(file, unchosen, "photo")

    @classmethod
    def fingerprint_inputs(cls, file, **_) -> str:
        return fingerprint(file)

    @classmethod
    def execute(cls, file, f_number=0.0, focal_mm=0.0, sensor=AS_WRITTEN, distance_m=0.0) -> io.NodeOutput:
        path = folder_paths.get_annotated_filepath(file)
        exif = read_exif(path)
        image, mask, warnings = _developed(file, path, exif.orientation or 1)
        height, width = picture_size(image)
        typed = {"f_number": f_number, "focal_mm": focal_mm, "distance_m": distance_m}
        taken = camera_of_photo(exif, width, height, sensor=SENSORS.get(sensor), **typed)
        ui = messages_ui(cls, taken.summary, [*warnings, *taken.warnings])
        return io.NodeOutput(image, mask, taken.camera, taken.distance_m, ui=ui)


def _developed(file: str, path: str, orientation: int) -> tuple[Tensor, Tensor, list[str]]:
    """Picture `(B, H, W, 3)` upright, mask `(B, H, W)`, warnings.

    Load Image's own pictures, except of a turned photo: it turns some kinds of files and not others.
    """
    name, warnings = Path(path).name, []
    known = True
    try:
        with Image.open(path) as photo:
            frames = getattr(photo, "n_frames", 1)
            single = photo.format in ONE_PHOTO
            photo.load()
    except Exception as error:  # Pillow fails in many ways, and Load Image may still know the file
        known = isinstance(error, OSError) and "truncated" in str(error)
        if known:
            warnings.append(f"{name} is cut short: what is missing of the picture is filled. Copy it again.")
            frames, single = 1, True
    if known and orientation > 1:
        image, mask = _turned(path, first=single or frames == 1)
        return image, mask, warnings
    try:
        # pyright takes ComfyUI's nodes.py for our own folder
        loader = comfy_nodes.LoadImage()  # pyright: ignore[reportAttributeAccessIssue]
        image, mask = loader.load_image(file)
    except Exception as error:
        what = str(error) or type(error).__name__
        raise ValueError(
            f"{name} cannot be opened as a picture ({what}): save it again as JPEG, PNG or WebP."
        ) from error
    return image, mask, warnings


def _turned(path: str, *, first: bool) -> tuple[Tensor, Tensor]:
    """The pictures of a file, turned upright, as Load Image gives them."""
    import node_helpers

    images, masks = [], []
    photo = node_helpers.pillow(Image.open, path)
    for frame in ImageSequence.Iterator(photo):
        upright = node_helpers.pillow(ImageOps.exif_transpose, frame)
        colour = torch.from_numpy(np.array(upright.convert("RGB"))).float() / 255.0
        if images and colour.shape != images[0].shape:
            continue
        images.append(colour)
        mask = torch.zeros(NO_MASK_PX, NO_MASK_PX)
        if "A" in upright.getbands() or "transparency" in upright.info:
            mask = 1.0 - torch.from_numpy(np.array(upright.convert("RGBA").getchannel("A"))).float() / 255.0
        masks.append(mask)
        if first:
            break
    return to_host(torch.stack(images)), to_host(torch.stack(masks))
