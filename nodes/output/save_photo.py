"""Save Photo: pictures with their camera in the EXIF, and the workflow beside it."""

from __future__ import annotations

import json
from pathlib import Path

import folder_paths
from comfy.cli_args import args
from comfy_api.latest import io
from torch import Tensor

from ...lens_models.photo.save import JPEG, PNG, SUFFIXES, WEBP, camera_tags, encoded, values_name, write_new
from ...lens_models.show.sheet import captions
from ..shared.images import picture_size
from ..shared.inputs import node_schema
from ..shared.messages import listing, messages_ui
from ..shared.progress import each
from ..shared.sockets import ANY_FOCUS, CAMERA, as_camera, as_focus

#: Names of files that are written out on the node.
MOST_NAMES = 8


class SavePhotoNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusSavePhoto",
            display_name="Save Photo",
            category="fine defocus/output",
            description="Saves pictures with the aperture, focal length and distance they were made with, as "
            "a camera writes them.",
            search_aliases="save image, exif, export, jpeg, jpg, webp, metadata, write photo",
            inputs=[
                io.Image.Input("images", tooltip="The pictures: one file each, with its own settings."),
                io.String.Input("filename_prefix", default="photo"),
                "Begin of the file names in ComfyUI's output folder. May hold a folder, and %year% %month% "
                "%day% %hour% %minute% %second% %width% %height% %batch_num%. A number follows, and no file "
                "is ever overwritten.",
                io.Combo.Input("format", [PNG, WEBP, JPEG], default=PNG),
                "PNG and WebP keep the workflow: drop the file into ComfyUI to get it back. JPEG cannot, "
                "and has no transparency either, which is shown on white. All keep the EXIF.",
                io.Int.Input("quality", default=92, min=1, max=100),
                "Of JPEG and WebP: 92 looks like the original, smaller makes smaller files. 100 makes WebP "
                "lossless. PNG always is.",
                io.Boolean.Input("values_in_name", default=True),
                "Writes f-number and focus distance into the file names, such as photo_f2.8_1.5m_00001_.jpg.",
                CAMERA.Input("camera", optional=True),
                "The camera or sweep the pictures were made with.",
                io.MultiType.Input("focus", ANY_FOCUS, optional=True),
                "The focus the pictures were made with, as FOCUS or metres.",
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, images, filename_prefix, format, quality, values_in_name, camera=None, focus=None
    ) -> io.NodeOutput:
        height, width = picture_size(images)
        count = images.shape[0]
        camera = None if camera is None else as_camera(camera)
        focus = None if focus is None else as_focus(focus)
        captions(count, camera, focus)  # refuses settings that are not those of the pictures
        workflow = None if args.disable_metadata else _workflow(cls)
        saved = []
        for i in each(range(count)):
            settings = (
                None if camera is None else camera.part(i, i + 1),
                None if focus is None else focus.part(i, i + 1),
            )
            tags = None if args.disable_metadata else camera_tags(*settings, width, height)
            content = encoded(images[i], format, quality, tags, workflow)
            prefix = filename_prefix.replace("%batch_num%", str(i))
            prefix += values_name(*settings) if values_in_name else ""
            try:
                subfolder, path = _written(prefix, SUFFIXES[format], content, width, height)
            except ValueError as error:
                before = f" {i} of {count} pictures were saved before it." if count > 1 else ""
                raise ValueError(f"{error}{before}") from error
            saved.append({"filename": path.name, "subfolder": subfolder, "type": "output"})
        summary = listing([image["filename"] for image in saved], MOST_NAMES)
        return io.NodeOutput(ui={**messages_ui(cls, summary, _warnings(format, images)), "images": saved})


def _written(prefix: str, suffix: str, content: bytes, width: int, height: int) -> tuple[str, Path]:
    """The folder's name in the output folder, and the path of a new file with a number in its name."""
    try:
        folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(
            prefix, folder_paths.get_output_directory(), width, height
        )
    except OSError as error:
        raise ValueError(f"The folder of {prefix} cannot be made: {error.strerror or error}.") from error
    return subfolder, write_new(Path(folder), lambda n: f"{stem}_{n:05}_{suffix}", counter, content)


def _workflow(cls: type[io.ComfyNode]) -> dict[str, str]:
    """What the editor reads back from a file: the prompt, the workflow and what else it sent."""
    texts = {}
    if cls.hidden.prompt is not None:
        texts["prompt"] = json.dumps(cls.hidden.prompt)
    for name, value in (cls.hidden.extra_pnginfo or {}).items():
        texts[name] = json.dumps(value)
    return texts


def _warnings(format: str, images: Tensor) -> list[str]:
    if args.disable_metadata:
        return ["ComfyUI runs with --disable-metadata: neither camera nor workflow is in the files."]
    if format != JPEG:
        return []
    alpha = " What is transparent was laid over white." if images.shape[-1] == 4 else ""
    return [f"JPEG cannot hold the workflow: save as {PNG} or {WEBP} to get it back from the file.{alpha}"]
