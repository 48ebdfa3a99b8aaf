"""Camera Conditioning: the baselines without a lens, whose generator is given the camera."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ...lens_models.generator import camera_words
from ...lens_models.generator.exif_embedding import rows
from ..shared.inputs import node_schema
from ..shared.messages import messages_ui
from ..shared.sockets import CAMERA, as_camera
from .sdxl import attached

EMBEDDING, DEPTH_OF_FIELD, EXIF_TEXT = "EXIF embedding", "deep / shallow words", "EXIF as text"


class CameraConditioningNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusCameraConditioning",
            display_name="Camera Conditioning",
            category="fine defocus/generate",
            description="Asks the model that makes the picture for an aperture and focal length, as numbers "
            "or in words. It only imitates them: for blur that follows the f-number use a lens.",
            search_aliases="exif, f-number, camera settings, depth of field prompt, bokeh prompt",
            inputs=[
                CAMERA.Input("camera"),
                "Its f-number and focal length are used; a sweep of N cameras goes with a batch of N "
                "latents.",
                io.Combo.Input("how", [EMBEDDING, DEPTH_OF_FIELD, EXIF_TEXT], default=EMBEDDING),
                "'EXIF embedding' adds the numbers to the network's time embedding and needs a generator "
                "with an EXIF head. The others write into the prompt: 'Deep Depth-of-Field' from f/10 on, "
                "else 'Shallow Depth-of-Field'; or 'f/2.8, 50 mm'.",
                io.String.Input("prompt", default="", multiline=True, dynamic_prompts=True),
                "The prompt that the words are put behind.",
                io.Model.Input("model", optional=True),
                "From Load AIF Generator, for 'EXIF embedding'. Passed on as it is otherwise.",
            ],
            outputs=[
                io.Model.Output("model_out", display_name="model", tooltip="The model with this camera."),
                io.String.Output("prompt_out", display_name="prompt", tooltip="For CLIP Text Encode."),
            ],
        )

    @classmethod
    def execute(cls, camera, how, prompt, model=None) -> io.NodeOutput:
        camera = as_camera(camera)
        f_numbers, focal_mm = (
            torch.as_tensor(v, dtype=torch.float32).reshape(-1) for v in (camera.f_number, camera.focal_mm)
        )
        f_numbers, focal_mm = torch.broadcast_tensors(f_numbers, focal_mm)
        texts = [
            camera_words.exif_text(n, f) for n, f in zip(f_numbers.tolist(), focal_mm.tolist(), strict=True)
        ]
        if how == EMBEDDING:
            conditioned = _with_embedding(model, f_numbers, focal_mm)
            return io.NodeOutput(conditioned, prompt, ui=messages_ui(cls, "  ".join(texts)))
        if len(texts) > 1:
            raise ValueError(
                f"The camera is a sweep of {len(texts)}, and a prompt takes one: connect a single camera, or "
                f"use '{EMBEDDING}'."
            )
        words = texts[0] if how == EXIF_TEXT else camera_words.depth_of_field(f_numbers.item())
        return io.NodeOutput(model, camera_words.appended(prompt, words), ui=messages_ui(cls, words))


def _with_embedding(model, f_numbers: Tensor, focal_mm: Tensor):
    if model is None:
        raise ValueError(f"'{EMBEDDING}' needs the model: connect Load AIF Generator, or choose a text form.")
    known = attached(model)
    if known is None or known.exif is None:
        name = known.card.name if known else "This model"
        raise ValueError(
            f"{name} has no EXIF head, which '{EMBEDDING}' needs: choose a text form, or a generator that "
            "was trained with one. Its file is loaded with Load AIF Generator."
        )
    width = model.model.model_config.unet_config["model_channels"] * 4
    if known.exif.width != width:
        raise ValueError(
            f"The EXIF head of {known.card.name} is {known.exif.width} wide and this model's time embedding "
            f"{width}: they do not belong together."
        )
    with torch.no_grad():
        offset = known.exif(f_numbers, focal_mm)
    model = model.clone()
    patches = model.model_options["transformer_options"].get("patches", {})
    if "emb_patch" in patches:  # an earlier camera is replaced, not added to
        patches["emb_patch"] = [p for p in patches["emb_patch"] if not isinstance(p, _Added)]
    model.set_model_emb_patch(_Added(offset))
    return model


class _Added:
    """ComfyUI's hook on the time embedding: adds the EXIF head's output, which no timestep changes."""

    def __init__(self, offset: Tensor):
        self.offset = offset

    def __call__(self, emb: Tensor, _model_channels: int, options: dict) -> Tensor:
        """emb: `(rows, width)`, whole batches one after the other, as many as `cond_or_uncond` names."""
        pictures = len(emb) // (len(options.get("cond_or_uncond", ())) or 1)
        if len(self.offset) not in (1, pictures):
            raise ValueError(
                f"{len(self.offset)} cameras do not go with {pictures} pictures: use 1 camera or a batch of "
                f"{len(self.offset)} latents."
            )
        return emb + rows(self.offset, len(emb)).to(emb)
