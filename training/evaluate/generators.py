"""Prompts to sharp pictures: SDXL in many steps with guidance, students in few, SD 2.1 with camera tokens.

All give sRGB `(1, 3, H, W)` in 0..1. Noise follows from seed and prompt, so that every method and every
aperture starts from the same.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from lens_models.generator.exif_embedding import camera_conditioned
from lens_models.generator.schedule import alphas_bar, clean_estimate, diffused, timesteps

from ..distill import rng
from ..networks.models import Prompt
from ..networks.sdxl_unet import generate, time_ids
from .networks import NetworkCache, decoded

_LATENT_PX = 8
Predict = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Request:
    """What a generator is asked for: text, and the camera for those that read it as numbers."""

    prompt: str
    text: str
    f_number: float
    focal_mm: float
    seed: int


def noise(request: Request, step: int, side: int) -> Tensor:
    """Unit noise of a step, `(1, 4, side, side)` float64, from seed and prompt alone."""
    return rng.normal(request.seed, step, [0], f"evaluate {request.prompt}", (4, side, side)).double()


def ddim(predict: Predict, start: Tensor, steps: int) -> Tensor:
    """The clean latent after DDIM without added noise (Song et al. 2021); predict(noisy, t) gives eps."""
    table, noisy = alphas_bar(device=start.device), start
    clean, marks = start, timesteps(steps)
    for i, t in enumerate(marks):
        eps = predict(noisy, t).double()
        clean = clean_estimate(noisy, eps, table[t])
        if i + 1 < len(marks):
            noisy = diffused(clean, eps, table[marks[i + 1]])
    return clean


class Guided:
    """SDXL with classifier-free guidance; its unconditional input is zeros, as SDXL has it.

    name, here and below: of its pictures, for files. reads_camera: the camera reaches it besides the text.
    student: its name among the trained ones, None for another network.
    """

    name, reads_camera, student = "sdxl", False, None

    def picture(self, networks: NetworkCache, request: Request) -> Tensor:
        return networks.decode(self.latent(networks, request))

    def latent(self, networks: NetworkCache, request: Request, control: Tensor | None = None) -> Tensor:
        """control: `(1, 3, H, W)` 0..1, what the ControlNet sees."""
        unet, prompt = networks.sdxl(), networks.text()([request.text])
        both = Prompt(*(torch.cat([empty, full]) for full, empty in zip(prompt, prompt.empty, strict=True)))
        start = noise(request, 0, networks.config.size_px // _LATENT_PX).to(networks.device)
        weight = next(unet.parameters())
        added = {"text_embeds": both.pooled.to(weight), "time_ids": time_ids(start).repeat(2, 1).float()}
        reads = {"encoder_hidden_states": both.text.to(weight), "added_cond_kwargs": added}

        def predict(noisy: Tensor, t: int) -> Tensor:
            twice, more = noisy.to(weight).repeat(2, 1, 1, 1), {}
            if control is not None:
                seen = control.to(weight).expand(2, -1, -1, -1)
                scale = networks.config.control_scale
                down, middle = networks.controlnet()(
                    twice, t, controlnet_cond=seen, conditioning_scale=scale, return_dict=False, **reads
                )
                more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            unconditional, conditional = unet(twice, t, **reads, **more).sample.double().chunk(2)
            return unconditional + networks.config.guidance * (conditional - unconditional)

        return ddim(predict, start, networks.config.steps)


@dataclass(frozen=True)
class FewSteps:
    """A student by its name in the config; reads_camera: through its EXIF embedding."""

    student: str
    reads_camera: bool = False

    @property
    def name(self) -> str:
        return f"student_{self.student}"

    def picture(self, networks: NetworkCache, request: Request) -> Tensor:
        network = networks.student(self.student)
        if self.reads_camera and network.exif is None:
            raise ValueError(
                f"students.{self.student} has no EXIF embedding: its run must have exif_embedding: true."
            )
        unet, side = network.unet, networks.config.size_px // _LATENT_PX
        prompt = networks.text()([request.text])
        noises = (noise(request, i, side) for i in range(len(network.timesteps)))
        camera = nullcontext()
        if self.reads_camera and network.exif is not None:
            camera = camera_conditioned(unet, network.exif, request.f_number, request.focal_mm)
        with camera:
            clean = generate(unet, noises, prompt.text, prompt.pooled, timesteps=network.timesteps)
        return networks.decode(clean)


class TokenGuided:
    """SD 2.1 that reads the camera as four tokens behind the prompt's."""

    name, reads_camera, student = "camera_tokens", True, None

    def picture(self, networks: NetworkCache, request: Request) -> Tensor:
        net, config = networks.camera_tokens(), networks.config
        size_px, iso, exposure_s = config.size_px, 100.0, 0.01
        if (given := config.camera_tokens) is not None:
            size_px, iso, exposure_s = given.size_px, given.iso, given.exposure_s
        settings = [[request.focal_mm, request.f_number, iso, exposure_s]]
        camera = net.tokens(torch.tensor(settings, device=networks.device))
        weight = next(net.unet.parameters())
        texts = []
        for words in ("", request.text):
            tokens = net.tokenizer(
                [words], padding="max_length", max_length=77, truncation=True, return_tensors="pt"
            )
            # SD 2's reading of a prompt is the encoder's last layer, normed
            encoded = net.encoder(tokens.input_ids.to(networks.device)).last_hidden_state.float()
            texts.append(torch.cat([encoded, camera], dim=1))
        text = torch.cat(texts).to(weight)
        table = alphas_bar(device=networks.device)

        def predict(noisy: Tensor, t: int) -> Tensor:
            out = net.unet(noisy.to(weight).repeat(2, 1, 1, 1), t, encoder_hidden_states=text).sample
            unconditional, conditional = out.double().chunk(2)
            found = unconditional + config.guidance * (conditional - unconditional)
            # v = √ᾱ ε − √(1 − ᾱ) x0, so ε = √ᾱ v + √(1 − ᾱ) x_t
            return table[t].sqrt() * found + (1 - table[t]).sqrt() * noisy if net.velocity else found

        start = noise(request, 0, size_px // _LATENT_PX).to(networks.device)
        return decoded(net.vae, ddim(predict, start, config.steps))


TextToImage = Guided | FewSteps | TokenGuided
