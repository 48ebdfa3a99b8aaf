"""Sample grids: the same prompts from the same noise, at eight apertures, as the run goes on."""

from __future__ import annotations

import torch
from torch import Tensor

from lens_models import Camera
from lens_models.generator.camera_words import with_camera_words
from lens_models.generator.schedule import sample_few_steps
from lens_models.show.sheet import contact_sheet
from lens_models.stops import FULL_STOPS, label

from ..config.run import Config
from ..distill import rng
from ..distill.stages import Stage2
from ..networks.models import Networks, Prompt
from ..networks.text import TextEncoders
from .loop import Trainer

#: The camera of the grids: 50 mm on a full-frame sensor.
FOCAL_MM, SENSOR_MM = 50.0, 36.0
_TILE_PX = 256


@torch.no_grad()
def student_latent(
    networks: Networks, config: Config, prompt: Prompt, sample: int, f_number: float, focal_mm: float
) -> Tensor:
    """The generator's clean latent of one prompt, all steps, `(1, 4, h, w)`; sample: names the noise."""
    side, camera = config.latent_side, (torch.tensor([f_number]), torch.tensor([focal_mm]))
    noises = (
        rng.normal(config.seed, 0, [sample], f"grid {i}", (4, side, side)).to(networks.device)
        for i in range(len(config.timesteps))
    )

    def eps(noisy: Tensor, t: int) -> Tensor:
        return networks.student_eps(noisy, torch.tensor([t], device=networks.device), prompt, *camera)

    return sample_few_steps(eps, noises, config.timesteps).to(networks.exact)


@torch.no_grad()
def photographs(trainer: Trainer, text: TextEncoders, caption: str, sample: int) -> tuple[Tensor, list[str]]:
    """One caption's pictures, sRGB `(8, 3, H, W)` or `(1, 3, H, W)`, and what to write below each.

    In stage 2 one sharp picture through the lens at eight apertures. In stage 1 that picture, or eight where
    the generator reads the aperture.
    """
    config, networks = trainer.config, trainer.networks

    def picture(f_number: float) -> Tensor:
        prompt = text([with_camera_words(caption, config.prompts, f_number, FOCAL_MM)])
        latent = student_latent(networks, config, prompt, sample, f_number, FOCAL_MM)
        return networks.decode(latent).clamp(0.0, 1.0)

    if isinstance(trainer.stage, Stage2):
        srgb = picture(FULL_STOPS[-1])
        camera = Camera(torch.tensor(FULL_STOPS, device=srgb.device), FOCAL_MM, SENSOR_MM)
        depth_m = networks.depth_m(srgb, Camera(FULL_STOPS[-1], FOCAL_MM, SENSOR_MM))
        focus = trainer.stage.focused(srgb, depth_m)
        shown = trainer.stage.through_the_lens(srgb, depth_m, focus, camera)
    elif config.prompts != "plain" or config.exif_embedding:
        shown = torch.cat([picture(f_number) for f_number in FULL_STOPS])
    else:
        return picture(FULL_STOPS[-1]), [caption]
    return shown, [label(f_number) for f_number in FULL_STOPS]


def sheet(trainer: Trainer, text: TextEncoders) -> Tensor:
    """The grid `(H, W, 3)` sRGB, a row per prompt; all ranks of a sharded run call this together."""
    rows, labels = [], []
    for sample, caption in enumerate(trainer.config.log.sample_prompts):
        shown, texts = photographs(trainer, text, caption, sample)
        rows.append(shown.float().cpu())
        labels += texts
    columns = len(labels) // len(rows)
    columns = columns if columns > 1 else 0
    return contact_sheet(torch.cat(rows).movedim(1, -1), labels, columns=columns, picture_width=_TILE_PX)[0]
