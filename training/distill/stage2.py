"""Stage 2: generator and focus predictor together, through depth, lens and autoencoder.

    latent -> picture -> depth -> focus and TAF Lens -> picture -> latent' -> distribution matching, GAN

on shallow turns; deep turns are those of stage 1. The paper does not mention the way back to a latent, but
teacher and critic read nothing else.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from lens_models import Camera, Focus, coc_px, taf_lens
from lens_models.light import linear_to_srgb, srgb_to_linear

from . import losses
from .batch import Batch, Report, agree, finite
from .relay import Segment, Values
from .schedule import Turn
from .stage1 import Stage1, TermsAt

#: Places in the shallow chain: values are the latent; the picture; picture and depth; the picture through
#: the lens; its latent.
_DEPTH, _LAST = 2, 4


class Stage2(Stage1):
    """Deep turns as in stage 1, and shallow turns through the lens."""

    def _chain(self, batch: Batch, turn: Turn, report: Report) -> list[Segment]:
        chain = super()._chain(batch, turn, report)
        if not turn.shallow:
            return chain
        camera = self.camera(batch)
        noise = self.noise(batch, turn, "encode") if self.config.sample_latents else None

        def pictured(latent: Tensor) -> Values:
            return (finite(self.networks.decode(latent), "The decoded picture"),)

        def measured(srgb: Tensor) -> Values:
            return srgb, self.networks.depth_m(srgb, camera)

        def photographed(srgb: Tensor, depth_m: Tensor) -> Values:
            focus = self.focused(srgb, depth_m)
            self._look(report, focus, depth_m, camera, srgb.shape[-1])
            return (self.through_the_lens(srgb, depth_m, focus, camera),)

        def encoded(srgb: Tensor) -> Values:
            return (self.networks.encode(srgb, noise),)

        return [*chain, pictured, measured, photographed, encoded]

    def _terms(self, batch: Batch, turn: Turn, report: Report) -> dict[int, TermsAt]:
        if not turn.shallow:
            return super()._terms(batch, turn, report)
        last = {_LAST: partial(self._matching, batch, turn, report)}
        return last if self.config.focus == "mean_depth" else {_DEPTH: self._focus_term, **last}

    def _sampled(self, batch: Batch, turn: Turn, report: Report, share: float) -> Tensor:
        """As in stage 1; with `huber_every: iteration` the focus predictor gets the Huber term on the way."""
        wanted = self.config.loss.huber_every == "iteration" and self.config.train_focus
        if not (turn.shallow and wanted):
            return super()._sampled(batch, turn, report, share)
        values: Values = ()
        for place, segment in enumerate(self._chain(batch, turn, report)):
            with torch.no_grad():
                values = segment(*values)
            if place == _DEPTH:
                with torch.enable_grad():
                    self._weighted(self._focus_term, report, share)(*values).backward()
        return finite(values[0], "The judged latent")

    def _generator_backward(self, batch: Batch, turn: Turn, report: Report, share: float) -> Tensor:
        if not turn.shallow and not self.config.train_generator:
            return self._sampled(batch, turn, report, share)
        return super()._generator_backward(batch, turn, report, share)

    def camera(self, batch: Batch) -> Camera:
        """The photos' own settings."""
        device = self.networks.device
        sensor = self.config.lens.sensor_mm
        own = batch.sensor_mm.to(device) if sensor is None else sensor
        return Camera(batch.f_number.to(device), batch.focal_mm.to(device), own)

    def focused(self, srgb: Tensor, depth_m: Tensor) -> Focus:
        """Where the trained predictor focuses, or the mean depth. Raises NotFinite for what is no focus."""
        if self.config.focus == "mean_depth":
            return Focus(mean_depth(depth_m))
        focus, problem = None, None
        try:
            distance, scale, _ = self.networks.focus(srgb, depth_m)
            focus = Focus(distance, scale)
        except ValueError as error:
            problem = f"The focus cannot be used: {error}"
        agree(problem, srgb.device)
        return focus

    def through_the_lens(self, srgb: Tensor, depth_m: Tensor, focus: Focus, camera: Camera) -> Tensor:
        """The picture as this camera blurs it, sRGB."""
        cap = self.config.lens.max_radius_px
        blurred = taf_lens(srgb_to_linear(srgb), depth_m, focus, camera, max_radius_px=cap)
        return linear_to_srgb(blurred)

    @torch.no_grad()
    def _look(self, report: Report, focus: Focus, depth_m: Tensor, camera: Camera, width_px: int) -> None:
        """What the log says about focus and blur; the relay comes here twice and says the same."""
        radius = coc_px(depth_m, focus, camera, width_px).abs() / 2.0
        scale = torch.as_tensor(focus.scale, dtype=radius.dtype).expand(len(radius))
        report.watched |= {
            "focus_distance_m": focus.distance_m.mean().item(),
            "focus_scale": scale.mean().item(),
            "radius_px": radius.mean().item(),
            "capped_share": (radius > self.config.lens.max_radius_px).float().mean().item(),
            "depth_std_m": depth_m.std().item(),
        }
        report.seen |= {
            "focus_distance_m": focus.distance_m.detach(),
            "focus_scale": scale,
            "coc_px": 2.0 * radius,
        }

    def _focus_term(self, srgb: Tensor, depth_m: Tensor) -> dict[str, Tensor]:
        """Huber distance from the frozen predictor; cut from picture and depth unless the config says so."""
        if not self.config.loss.huber_to_generator:
            srgb, depth_m = srgb.detach(), depth_m.detach()
        focus = self.focused(srgb, depth_m)
        reference = self.networks.reference_distance(srgb, depth_m)
        return {"huber": losses.focus_huber(focus.distance_m, reference, self.config.loss.huber_delta)}


def mean_depth(depth_m: Tensor) -> Tensor:
    """Mean of what is nearer than infinity, `(B, H, W)` -> `(B,)`, m."""
    near = torch.isfinite(depth_m)
    return torch.where(near, depth_m, 0.0).sum(dim=(1, 2)) / near.sum(dim=(1, 2)).clamp_min(1)
