"""Prompts to sharp pictures: SDXL in many steps with guidance, students in few, SD 2.1 with camera tokens.

All give sRGB `(1, 3, H, W)` in 0..1. Noise follows from seed and prompt, so that every method and every
aperture starts from the same.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lens_models.generator.exif_embedding import camera_conditioned
from lens_models.generator.schedule import alphas_bar, clean_estimate, diffused, timesteps

from ..distill import rng
from ..networks.models import Prompt
from ..networks.sdxl_unet import generate, time_ids
from .camera_tokens import SETTINGS
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


class TextToImage(Protocol):
    """name: of its pictures, for files. reads_camera: whether the camera reaches it besides the text.

    student: its name among the trained ones, None for another network.
    """

    @property
    def name(self) -> str: ...

    @property
    def reads_camera(self) -> bool: ...

    @property
    def student(self) -> str | None: ...

    def picture(self, networks: NetworkCache, request: Request) -> Tensor:
        """sRGB `(1, 3, H, W)`, 0..1."""
        ...


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


@dataclass(frozen=True)
class Guided:
    """SDXL with classifier-free guidance; its unconditional input is zeros, as SDXL has it."""

    name: str = "sdxl"
    reads_camera: bool = False
    student: None = None

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
                down, middle = networks.controlnet()(
                    twice,
                    t,
                    controlnet_cond=control.to(weight).expand(2, -1, -1, -1),
                    conditioning_scale=networks.config.control_scale,
                    return_dict=False,
                    **reads,
                )
                more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            unconditional, conditional = unet(twice, t, **reads, **more).sample.double().chunk(2)
            return unconditional + networks.config.guidance * (conditional - unconditional)

        return ddim(predict, start, networks.config.steps)


@dataclass(frozen=True)
class FewSteps:
    """A student by its name in the config; reads_camera: the camera reaches its EXIF embedding."""

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


@dataclass(frozen=True)
class TokenGuided:
    """SD 2.1 that reads the camera as four tokens behind the prompt's."""

    name: str = "camera_tokens"
    reads_camera: bool = True
    student: None = None

    def picture(self, networks: NetworkCache, request: Request) -> Tensor:
        net, config = networks.camera_tokens(), networks.config
        given = config.camera_tokens
        side = (config.size_px if given is None else given.size_px) // _LATENT_PX
        iso, exposure = (100.0, 0.01) if given is None else (given.iso, given.exposure_s)
        values = dict(zip(SETTINGS, (request.focal_mm, request.f_number, iso, exposure), strict=True))
        settings = torch.tensor([[values[name] for name in SETTINGS]], device=networks.device)
        camera, weight = net.tokens(settings), next(net.unet.parameters())
        text = torch.cat(
            [
                torch.cat([_encoded(net.tokenizer, net.encoder, words, networks.device), camera], dim=1)
                for words in ("", request.text)
            ]
        ).to(weight)
        table = alphas_bar(device=networks.device)

        def predict(noisy: Tensor, t: int) -> Tensor:
            out = net.unet(noisy.to(weight).repeat(2, 1, 1, 1), t, encoder_hidden_states=text).sample
            unconditional, conditional = out.double().chunk(2)
            found = unconditional + config.guidance * (conditional - unconditional)
            # v = √ᾱ ε − √(1 − ᾱ) x0, so ε = √ᾱ v + √(1 − ᾱ) x_t
            return table[t].sqrt() * found + (1 - table[t]).sqrt() * noisy if net.velocity else found

        return decoded(net.vae, ddim(predict, noise(request, 0, side).to(networks.device), config.steps))


def _encoded(tokenizer: Any, encoder: nn.Module, words: str, device: torch.device) -> Tensor:
    """SD 2's reading of a prompt, `(1, 77, D)`: the encoder's last layer, normed."""
    tokens = tokenizer([words], padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    return encoder(tokens.input_ids.to(device)).last_hidden_state.float()
