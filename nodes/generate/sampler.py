"""The all-in-focus picture: a distilled SDXL with the exact schedule it was distilled for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import comfy.latent_formats
import comfy.model_management as mm
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ...lens_models.generator.schedule import STEP_COUNTS, ItemNoise, timesteps
from ..shared.images import to_host
from ..shared.inputs import node_schema
from ..shared.messages import messages_ui
from . import sdxl

LARGEST_SEED = 2**64 - 1


class AIFSamplerNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusAIFSampler",
            display_name="AIF Sampler (4-step)",
            category="fine defocus/generate",
            description="Makes a picture that is sharp everywhere from a prompt, in the four steps that a "
            "fast SDXL was trained for. No negative prompt, no CFG.",
            search_aliases="dmd2, 4 step, lcm, ksampler, all in focus, distilled, text to image, generate",
            inputs=[
                io.Model.Input("model"),
                "A distilled SDXL: from Load AIF Generator, or SDXL with a 4-step LoRA. LoRAs and other "
                "model patches may come in between.",
                io.Conditioning.Input("positive"),
                "The prompt, encoded with SDXL's CLIP; ControlNet may come in between.",
                io.Latent.Input("latent"),
                "Empty Latent Image, or a picture from VAE Encode for a mask or a later start step.",
                io.Int.Input("seed", default=0, min=0, max=LARGEST_SEED, control_after_generate=True),
                "Noise of the first picture; the next ones of a batch have seed + 1, seed + 2 …",
                io.Combo.Input(
                    "steps", [str(n) for n in STEP_COUNTS], default=str(STEP_COUNTS[0]), advanced=True
                ),
                "4 for 4-step generators: timesteps 999, 749, 499, 249. Others are for models that were "
                "made for them.",
                io.Int.Input("start_step", default=0, min=0, max=max(STEP_COUNTS) - 1, advanced=True),
                "0 starts from noise alone. 1 and up start from the latent, with the noise of that step: "
                "the higher, the more of the picture stays.",
                io.Mask.Input("mask", optional=True),
                "White is regenerated, black stays as in the latent. Without one, the latent's own mask is "
                "used.",
            ],
            outputs=[
                io.Latent.Output("latent_out", display_name="latent"),
                "The sharp picture, for VAE Decode.",
            ],
        )

    @classmethod
    def execute(cls, model, positive, latent, seed, steps, start_step, mask=None) -> io.NodeOutput:
        sdxl.check_model(model)
        sdxl.check_prompt(positive, model)
        samples = sdxl.check_latent(latent)
        at, warnings = _schedule(model, int(steps))
        if start_step >= len(at):
            raise ValueError(
                f"start_step is {start_step}, and with {len(at)} steps the last one is {len(at) - 1}: choose "
                "a smaller start_step or more steps."
            )
        mask = latent.get("noise_mask") if mask is None else mask
        _check_mask(mask, samples)
        if not torch.count_nonzero(samples) and (start_step or mask is not None):
            warnings.append(
                f"The latent is empty, so {'start_step' if start_step else 'the mask'} keeps nothing but "
                "grey: connect a picture through VAE Encode."
            )
        noise = ItemNoise(seed, samples.shape, latent.get("batch_index"))
        out = {key: value for key, value in latent.items() if not key.startswith("downscale_ratio")}
        at, from_noise = at[start_step:], start_step == 0
        out["samples"] = _sampled(model, positive, samples, at, noise, from_noise, mask, seed)
        warnings += sdxl.training_warnings(model, samples)
        summary = f"{len(at)} steps at {', '.join(map(str, at))}"
        summary += f", seeds {seed} to {seed + len(samples) - 1}" if len(samples) > 1 else ""
        return io.NodeOutput(out, ui=messages_ui(cls, summary, warnings))


def _schedule(model: ModelPatcher, steps: int) -> tuple[tuple[int, ...], list[str]]:
    """Timesteps: those the model's file names where their number is the chosen one, else evenly spaced."""
    known = sdxl.attached(model)
    own = known.card.timesteps if known else None
    if known is None or own is None or len(own) == steps:
        return own or timesteps(steps), []
    return timesteps(steps), [
        f"{known.card.name} was made for the timesteps {', '.join(map(str, own))}, and {steps} steps are "
        "chosen."
    ]


def _check_mask(mask: Tensor | None, samples: Tensor) -> None:
    if mask is None:
        return
    if mask.ndim < 2 or 0 in mask.shape:
        raise ValueError(f"The mask has no picture in it: its shape is {tuple(mask.shape)}.")
    masks = mask.shape[0] if mask.ndim > 2 else 1
    if masks not in (1, len(samples)):
        raise ValueError(
            f"{masks} masks do not go with {len(samples)} latents: use 1 mask or {len(samples)} masks."
        )


def _sampled(
    model: ModelPatcher,
    positive: list,
    samples: Tensor,
    at: tuple[int, ...],
    noise: ItemNoise,
    from_noise: bool,
    mask: Tensor | None,
    seed: int,
) -> Tensor:
    """Run the steps through ComfyUI's guider, so that patches, hooks and ControlNets take part."""
    table = sdxl.noise_table(model)
    sigmas = torch.cat([table[list(at)], table.new_zeros(1)]).cpu()
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": positive})
    first = noise.draw()
    sampler = comfy.samplers.KSAMPLER(_few_steps, {"noise": noise, "first": first if from_noise else None})
    try:
        clean = guider.sample(
            first, samples, sampler, sigmas, mask, _preview(model, len(at)), disable_pbar=True, seed=seed
        )
    except torch.cuda.OutOfMemoryError as error:
        height, width = (side * sdxl.LATENT_PX for side in samples.shape[-2:])
        raise torch.cuda.OutOfMemoryError(
            f"The device's memory does not hold {len(samples)} × {width} × {height} px at once: make fewer "
            "pictures per run (batch_size) or smaller ones."
        ) from error
    return to_host(clean)


def _few_steps(
    model: Callable,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any],
    callback: Callable | None,
    disable: bool,
    *,
    noise: ItemNoise,
    first: Tensor | None,
) -> Tensor:
    """ComfyUI sampler: predict the clean latent, diffuse it to the next step with fresh noise, and so on.

    first: noise to start from alone, whatever the latent; None starts from x, the diffused latent.
    """
    sampling = model.inner_model.model_patcher.get_model_object("model_sampling")
    rows = x.new_ones(x.shape[0])
    if first is not None:
        # unit variance for the network even where the first timestep is not the table's last
        x = sampling.noise_scaling(sigmas[0], first.to(x), torch.zeros_like(x), max_denoise=True)
    for i, (now, then) in enumerate(pairwise(sigmas)):
        mm.throw_exception_if_processing_interrupted()
        clean = model(x, now * rows, **extra_args)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": now, "sigma_hat": now, "denoised": clean})
        x = clean if then == 0 else sampling.noise_scaling(then, noise.draw().to(clean), clean)
    return x


def _preview(model: ModelPatcher, steps: int) -> Callable[[int, Tensor, Tensor, int], None]:
    """Progress with a preview of the clean estimate after every step.

    With so few steps each is worth seeing: where ComfyUI's previews are off, the quick one is shown.
    """
    latents = model.get_model_object("latent_format")
    previewer = latent_preview.get_previewer(model.load_device, latents)
    if previewer is None:
        previewer = latent_preview.Latent2RGBPreviewer(
            latents.latent_rgb_factors, latents.latent_rgb_factors_bias, latents.latent_rgb_factors_reshape
        )
    bar = comfy.utils.ProgressBar(steps)

    def show(step: int, clean: Tensor, _x: Tensor, total: int) -> None:
        bar.update_absolute(step + 1, total, previewer.decode_latent_to_preview_image("JPEG", clean))

    return show
