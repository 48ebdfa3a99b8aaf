"""The rows of the paper's tables: each a small composition of words, generator, depth, focus and lens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lens_models import Camera, Focus, dr_bokeh_lens, taf_lens
from lens_models.files import atomic
from lens_models.generator.camera_words import with_camera_words
from lens_models.light import linear_to_srgb, srgb_to_linear

from ..distill.stages import mean_depth
from .generators import FewSteps, Guided, Request, TextToImage, TokenGuided
from .networks import NetworkCache

Words = Literal["plain", "exif", "depth_of_field"]
#: Aperture that a text names where the picture before a lens shall be sharp.
DEEP_F_NUMBER = 22.0
LENSES: dict[str, Callable[..., Tensor]] = {"taf": taf_lens, "dr_bokeh": dr_bokeh_lens}


@dataclass(frozen=True, eq=False)
class Pictures:
    """One prompt at N apertures: linear light `(N, 3, H, W)`, before any rounding, on the CPU.

    focus_m, focus_scale: where the lens was focused; None without a lens.
    """

    linear: Tensor
    focus_m: float | None = None
    focus_scale: float | None = None

    @property
    def srgb(self) -> Tensor:
        """The same as sRGB; above 1 where the light is."""
        return linear_to_srgb(self.linear)


@dataclass(frozen=True)
class PerAperture:
    """No lens: the generator makes a picture for every aperture, the same request only once.

    title, here and below: as it stands in the table. generate, here and below: a prompt at every aperture of
    exif, with the same noise for all of them.
    """

    title: str
    generator: TextToImage
    words: Words = "plain"

    def generate(self, networks: NetworkCache, prompt: str, exif: Camera, seed: int) -> Pictures:
        made: dict[tuple[str, float | None], Tensor] = {}
        frames, focal_mm = [], float(exif.focal_mm)
        for f_number in _stops(exif):
            request = _request(prompt, self.words, f_number, focal_mm, seed)
            key = (request.text, f_number if self.generator.reads_camera else None)
            if key not in made:
                made[key] = self.generator.picture(networks, request)
            frames.append(made[key])
        return Pictures(srgb_to_linear(torch.cat(frames)).cpu())


@dataclass(frozen=True)
class ThroughTheLens:
    """One sharp picture, its depth and its focus; the lens makes the apertures.

    focus: "untrained" reads the published saliency network, "trained" the student's, "mean_depth" neither.
    """

    title: str
    generator: TextToImage
    lens: str
    focus: Literal["untrained", "trained", "mean_depth"] = "untrained"
    words: Words = "plain"

    def generate(self, networks: NetworkCache, prompt: str, exif: Camera, seed: int) -> Pictures:
        focal_mm = float(exif.focal_mm)
        request = _request(prompt, self.words, DEEP_F_NUMBER, focal_mm, seed)
        srgb = _sharp_picture(self.generator, networks, request)
        depth_m = networks.depth_m(srgb, focal_mm)
        if self.focus == "mean_depth":
            focus = Focus(mean_depth(depth_m))
        else:
            student = self.generator.student if self.focus == "trained" else None
            focus = Focus(*networks.focus(student)(srgb, depth_m)[:2])
        linear = LENSES[self.lens](
            srgb_to_linear(srgb), depth_m, focus, exif, max_radius_px=networks.config.max_radius_px
        )
        focused = (float(torch.as_tensor(v).reshape(-1)[0]) for v in (focus.distance_m, focus.scale))
        return Pictures(linear.float().cpu(), *focused)


@dataclass(frozen=True)
class DepthControlled:
    """SDXL with EXIF as text and a ControlNet that holds every aperture to one depth map.

    The depth is that of the picture at f/22, shown as inverse depth, near bright, from 0 to 1.
    """

    title: str

    def generate(self, networks: NetworkCache, prompt: str, exif: Camera, seed: int) -> Pictures:
        sdxl, focal_mm = Guided(), float(exif.focal_mm)
        deep, *requests = (
            _request(prompt, "exif", f_number, focal_mm, seed) for f_number in (DEEP_F_NUMBER, *_stops(exif))
        )
        near = 1.0 / networks.depth_m(sdxl.picture(networks, deep), focal_mm)
        low, high = near.amin(dim=(1, 2), keepdim=True), near.amax(dim=(1, 2), keepdim=True)
        control = ((near - low) / (high - low).clamp_min(1e-9))[:, None].expand(-1, 3, -1, -1)
        frames = [networks.decode(sdxl.latent(networks, request, control)) for request in requests]
        return Pictures(srgb_to_linear(torch.cat(frames)).cpu())


Method = PerAperture | ThroughTheLens | DepthControlled


def _request(prompt: str, words: Words, f_number: float, focal_mm: float, seed: int) -> Request:
    return Request(prompt, with_camera_words(prompt, words, f_number, focal_mm), f_number, focal_mm, seed)


def _sharp_picture(generator: TextToImage, networks: NetworkCache, request: Request) -> Tensor:
    """A generator's picture, kept in the networks' folder of scenes for the methods that share it."""
    if networks.scenes is None:
        return generator.picture(networks, request)
    name = hashlib.sha256(f"{networks.config.hash} {generator.name} {request}".encode()).hexdigest()[:24]
    path = networks.scenes / f"{name}.npy"
    if not path.is_file():
        srgb = generator.picture(networks, request)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as part:
            np.save(part, srgb.cpu().numpy())
    return torch.from_numpy(np.load(path, allow_pickle=False)).to(networks.device)


def _stops(exif: Camera) -> list[float]:
    return torch.as_tensor(exif.f_number).reshape(-1).tolist()


_OURS = FewSteps("ours")
TABLE1: dict[str, Method] = {
    "1": PerAperture("SDXL, EXIF as text", Guided(), "exif"),
    "2": PerAperture("SDXL, depth of field as text", Guided(), "depth_of_field"),
    "3": PerAperture("4 steps, depth of field as text", FewSteps("depth_of_field_words"), "depth_of_field"),
    "4": PerAperture("4 steps, EXIF embedding", FewSteps("exif_embedding", reads_camera=True)),
    "5": PerAperture("Camera Settings as Tokens", TokenGuided()),
    "6": ThroughTheLens("SDXL + TAF Lens", Guided(), "taf"),
    "7": ThroughTheLens("SDXL + Dr.Bokeh Lens", Guided(), "dr_bokeh"),
    "8": ThroughTheLens("SDXL, EXIF fixed at f/22 + TAF Lens", Guided(), "taf", words="exif"),
    "9": ThroughTheLens("Deep-DoF generator + TAF Lens", FewSteps("stage1"), "taf"),
    "10": ThroughTheLens("Ours, TAF Lens", _OURS, "taf", "trained"),
    "11": ThroughTheLens("Ours, Dr.Bokeh Lens", _OURS, "dr_bokeh", "trained"),
    "controlnet": DepthControlled("SDXL, EXIF as text + depth ControlNet"),
}
TABLE2: dict[str, Method] = {
    "1": ThroughTheLens("Without stage 1", FewSteps("without_stage1"), "taf", "trained"),
    "2": ThroughTheLens("Without the Huber term", FewSteps("without_huber"), "taf", "trained"),
    "3": ThroughTheLens("Focus at the mean depth", FewSteps("mean_depth"), "taf", "mean_depth"),
    "5": ThroughTheLens("Frozen generator", FewSteps("frozen_generator"), "taf", "trained"),
    "full": ThroughTheLens("Ours, TAF Lens (Table 1, row 10)", _OURS, "taf", "trained"),
}
METHODS: dict[str, dict[str, Method]] = {"table1": TABLE1, "table2": TABLE2}
