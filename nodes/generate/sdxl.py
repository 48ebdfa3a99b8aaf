"""Checks of the model, prompt and latent that the generator's nodes are given."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import comfy.model_base
import comfy.model_sampling
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...lens_models.generator.card import GeneratorCard
from ...lens_models.generator.exif_embedding import ExifEmbedding
from ...lens_models.generator.schedule import TABLE_LENGTH, alphas_bar, sigma

CHANNELS, LATENT_PX = 4, 8
#: Sides of SDXL's pictures are multiples of this in training, and none are smaller, px.
TRAINED_MULTIPLE_PX, SMALLEST_PX = 64, 64
TABLE_TOLERANCE = 0.01
#: Name of the attachment with the model's card and EXIF head.
ATTACHMENT = "fine_defocus_generator"
#: What a model predicts, by the class that turns its output into a picture.
_PREDICTIONS = {
    "V_PREDICTION": "velocity (v-prediction)",
    "V_PREDICTION_DDPM": "velocity (v-prediction)",
    "EDM": "the EDM mixture",
    "CONST": "flow",
    "COSMOS_RFLOW": "flow",
    "IMG_TO_IMG": "the picture itself",
    "X0": "the picture itself",
    "LCM": "noise in the way of LCM",
}


class Generator(NamedTuple):
    """What Load AIF Generator attaches to a model."""

    card: GeneratorCard
    exif: ExifEmbedding | None


def attached(model: ModelPatcher) -> Generator | None:
    """The model's card and EXIF head; None for a model that another node loaded."""
    attachment = model.get_attachment(ATTACHMENT)
    return attachment if isinstance(attachment, Generator) else None


def check_model(model: Any) -> None:
    """Raises ValueError unless this is SDXL that predicts noise on a table of 1000 timesteps."""
    if not isinstance(model, ModelPatcher):
        raise ValueError(f"The model input got {type(model).__name__}: connect Load AIF Generator.")
    sampling = model.get_model_object("model_sampling")
    other = next(
        (_PREDICTIONS[c.__name__] for c in type(sampling).__mro__ if c.__name__ in _PREDICTIONS), None
    )
    if other or not isinstance(sampling, comfy.model_sampling.EPS):
        raise ValueError(
            f"This model predicts {other or 'something unknown'}; the 4-step sampler is for models that "
            "predict noise (eps), as SDXL does. Connect Load AIF Generator, or SDXL with a 4-step LoRA and "
            "without a ModelSampling node."
        )
    if not isinstance(model.model, comfy.model_base.SDXL):
        raise ValueError(
            f"This model is of the family {type(model.model.model_config).__name__}; the 4-step sampler is "
            "for SDXL. Connect Load AIF Generator, or an SDXL checkpoint with a 4-step LoRA."
        )
    if (length := len(noise_table(model))) != TABLE_LENGTH:
        raise ValueError(
            f"This model's noise table has {length} timesteps and the schedule is made for "
            f"{TABLE_LENGTH}: remove the node that changes the model's sampling."
        )


def noise_table(model: ModelPatcher) -> Tensor:
    """Sigma of every timestep, `(1000,)` where the model is SDXL's."""
    return cast(Tensor, model.get_model_object("model_sampling").sigmas)


def training_warnings(model: ModelPatcher, samples: Tensor) -> list[str]:
    """Sentences for what runs, but no SDXL was trained on: another noise table's end, sizes off its grid."""
    warnings = []
    ends, usual = noise_table(model)[-1].item(), sigma(alphas_bar())[-1].item()
    if abs(ends / usual - 1) > TABLE_TOLERANCE:  # as with zero terminal SNR
        warnings.append(
            f"This model's noise table ends at {ends:.4g} and SDXL's at {usual:.4g}: the steps are not those "
            "it was distilled for."
        )
    height, width = (side * LATENT_PX for side in samples.shape[-2:])
    if height % TRAINED_MULTIPLE_PX or width % TRAINED_MULTIPLE_PX:
        warnings.append(
            f"{width} × {height} px is not in steps of {TRAINED_MULTIPLE_PX} px, as SDXL's training pictures "
            "are: edges may be worse."
        )
    return warnings


def check_prompt(positive: Any, model: ModelPatcher) -> None:
    """Raises ValueError unless this is one prompt that was encoded for SDXL."""
    if not isinstance(positive, list):
        raise ValueError(
            f"The positive input got a {type(positive).__name__}, not a conditioning: connect one encoded "
            "prompt. There is no negative prompt here."
        )
    if not positive:
        raise ValueError("The positive input is empty: connect a CLIP Text Encode.")
    for part in positive:
        if not (isinstance(part, (list, tuple)) and len(part) == 2 and isinstance(part[1], dict)):
            raise ValueError(
                "The positive input got a pair of conditionings, as for CFG: connect the positive prompt "
                "alone. There is no negative prompt here."
            )
        _check_encoded(part[0], part[1], model)


def _check_encoded(text: Tensor, more: dict, model: ModelPatcher) -> None:
    again = "encode the prompt with the CLIP of an SDXL checkpoint"
    pooled = more.get("pooled_output")
    if pooled is None and "unclip_conditioning" not in more:
        raise ValueError(f"The prompt has no pooled output, which SDXL needs: {again}.")
    width = model.model.model_config.unet_config.get("context_dim")
    if width and text.shape[-1] != width:
        raise ValueError(
            f"The prompt was encoded to {text.shape[-1]} numbers per token and this model reads {width}: "
            f"{again}."
        )
    # SDXL's embedding of sizes takes six numbers' worth, and the pooled prompt has the rest
    room = model.model.adm_channels - 6 * model.model.embedder.dim
    if pooled is not None and pooled.shape[-1] != room:
        raise ValueError(
            f"The prompt's pooled output has {pooled.shape[-1]} numbers and this model reads {room}: {again}."
        )


def check_latent(latent: Any) -> Tensor:
    """The latent `(B, 4, H, W)`. Raises ValueError for one of another family or without a picture."""
    samples = latent.get("samples") if isinstance(latent, dict) else None
    if samples is None:
        raise ValueError("The latent input holds no latent: connect Empty Latent Image or VAE Encode.")
    if getattr(samples, "is_nested", False) or samples.ndim != 4:
        shape = "several latents" if getattr(samples, "is_nested", False) else f"shape {tuple(samples.shape)}"
        raise ValueError(
            f"The latent is of a video or of sound ({shape}); SDXL's is (batch, {CHANNELS}, height, width): "
            "connect Empty Latent Image."
        )
    count, channels, height, width = samples.shape
    if channels != CHANNELS:
        raise ValueError(
            f"The latent has {channels} channels and SDXL's has {CHANNELS}: use Empty Latent Image, or VAE "
            "Encode with the VAE of an SDXL checkpoint."
        )
    if count == 0 or min(height, width) * LATENT_PX < SMALLEST_PX:
        raise ValueError(
            f"The latent is {count} × {width * LATENT_PX} × {height * LATENT_PX} px: it needs one picture at "
            f"least, and {SMALLEST_PX} px on either side."
        )
    return samples
