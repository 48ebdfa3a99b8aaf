"""The turns of both stages: what is computed, and which gradients are accumulated.

Stage 1 distils the generator of sharp pictures from the teacher, against the deep set. Stage 2 trains the
generator and the focus predictor together; its deep turns are those of stage 1, its shallow ones go through

    latent -> picture -> depth -> focus and TAF Lens -> picture -> latent' -> distribution matching, GAN

The paper does not mention the way back to a latent, but teacher and critic read nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lens_models import Camera, Focus, coc_px, taf_lens
from lens_models.generator.schedule import alphas_bar, clean_estimate, diffused, sample_few_steps
from lens_models.light import linear_to_srgb, srgb_to_linear

from ..config.run import Config, Range
from ..networks.models import Networks, Prompt, frozen
from . import losses, rng
from .batch import Batch, Report, agree, finite
from .relay import LossAt, Segment, Values, one_graph, relay, run
from .schedule import Turn

#: From the values at a place in the chain to unweighted losses by name.
TermsAt = Callable[..., dict[str, Tensor]]
#: Places in the shallow chain: values are the latent; the picture; picture and depth; the picture through
#: the lens; its latent.
_DEPTH, _LAST = 2, 4


class Stage1:
    """Turns without a lens. Segments: the student's last step. Losses at its latent."""

    def __init__(self, config: Config, networks: Networks):
        self.config, self.networks = config, networks
        self.table = alphas_bar(device=networks.device)

    def backward(self, batch: Batch, turn: Turn, share: float = 1.0) -> Report:
        """Accumulate the gradients of this turn: of the generator in its turns, of the fake score always.

        share: of this batch in the step, 1 / accumulation. Raises NotFinite; what was accumulated is then
        to be thrown away.
        """
        report = Report()
        sample = self._generator_backward if turn.generator else self._sampled
        report.sample = sample(batch, turn, report, share)
        self._fake_backward(report.sample.detach(), batch, turn, report, share)
        return report

    def _chain(self, batch: Batch, turn: Turn, report: Report) -> list[Segment]:
        """From nothing to the latent that is judged; report: for what is seen on the way."""
        noisy = self.student_input(batch, turn)
        return [lambda: (self.student_step(noisy, batch, turn),)]

    def _terms(self, batch: Batch, turn: Turn, report: Report) -> dict[int, TermsAt]:
        """Losses by their place in the chain."""
        return {0: partial(self._matching, batch, turn, report)}

    def _sampled(self, batch: Batch, turn: Turn, report: Report, share: float) -> Tensor:
        """The latent for the fake score, on turns without the generator."""
        with torch.no_grad():
            *_, (latent,) = run(self._chain(batch, turn, report))
        return finite(latent, "The generator's latent")

    def _generator_backward(self, batch: Batch, turn: Turn, report: Report, share: float) -> Tensor:
        chain = self._chain(batch, turn, report)
        terms = self._terms(batch, turn, report)
        by_place = {place: self._weighted(at, report, share) for place, at in terms.items()}
        wanted = self.config.relay and len(chain) > 1
        # with LoRAs the critic's must not be the chosen one when the generator is computed again
        backward = relay if wanted or self.config.lora_rank else one_graph
        with frozen(*self.networks.fake):
            values, _ = backward(chain, by_place)
        return values[-1][0]

    def _weighted(self, terms: TermsAt, report: Report, share: float) -> LossAt:
        weights = self.config.loss
        lambdas = (weights.dmd, weights.gan * weights.gan_generator, weights.huber)

        def loss(*values: Tensor) -> Tensor:
            found = terms(*values)
            for name, term in found.items():
                report.losses[name] = finite(term, f"The loss {name}").item()
            dmd, gan, huber = (found.get(name, 0.0) for name in ("dmd", "gan", "huber"))
            return torch.as_tensor(share * losses.total(dmd, gan, huber, lambdas))

        return loss

    def student_input(self, batch: Batch, turn: Turn) -> Tensor:
        """What the student's trained step k sees, from its own k steps before, float64, no gradient."""
        before = self.config.timesteps[: turn.k]
        noises = [self.noise(batch, turn, f"student {i}").double() for i in range(turn.k + 1)]
        if not before:
            return noises[0]
        with torch.no_grad():
            clean = sample_few_steps(partial(self._eps, batch), noises, before)
        return diffused(clean, noises[-1], self.table[self.config.timesteps[turn.k]])

    def student_step(self, noisy: Tensor, batch: Batch, turn: Turn) -> Tensor:
        """The trained step: the clean latent."""
        t = self.config.timesteps[turn.k]
        clean = clean_estimate(noisy, self._eps(batch, noisy, t).double(), self.table[t])
        return finite(clean, "The generator's latent").to(self.networks.exact)

    def _eps(self, batch: Batch, noisy: Tensor, t: int) -> Tensor:
        times = torch.full((noisy.shape[0],), t, device=noisy.device)
        return self.networks.student_eps(noisy, times, batch.prompt, batch.f_number, batch.focal_mm)

    def _matching(self, batch: Batch, turn: Turn, report: Report, latent: Tensor) -> dict[str, Tensor]:
        """Distribution matching and GAN at the latent that is judged."""
        finite(latent, "The judged latent")
        noisy, t, a, _ = self.diffuse(latent, batch, turn, "dmd", self.config.dmd_timesteps)
        with torch.no_grad():
            clean = partial(clean_estimate, noisy.double(), alpha_bar=a)
            teacher = self.networks.teacher_eps(noisy, t, self._teacher_prompt(batch), self.config.guidance)
            fake = self.networks.fake_eps(noisy, t, batch.prompt, turn.shallow)
            gradient = losses.dmd_gradient(latent.double(), clean(teacher.double()), clean(fake.double()))
        report.watched["dmd_gradient"] = gradient.norm().item()
        found = {"dmd": losses.dmd_loss(latent, gradient.to(latent))}
        if turn.gan:
            noisy, t, _, _ = self.diffuse(latent, batch, turn, "gan", self.config.gan_timesteps)
            logits = self.networks.logits(noisy, t, batch.prompt, turn.shallow)
            found["gan"] = losses.gan_generator_loss(logits)
        return found

    def _fake_backward(self, sample: Tensor, batch: Batch, turn: Turn, report: Report, share: float) -> None:
        """The fake score on the generator's latent, and the critic on it and on photos."""
        noisy, t, _, noise = self.diffuse(sample, batch, turn, "fake", self.config.fake_timesteps)
        eps = self.networks.fake_eps(noisy, t, batch.prompt, turn.shallow)
        loss = finite(losses.fake_loss(eps, noise), "The loss fake")
        report.losses["fake"] = loss.item()
        (share * loss).backward()
        if not turn.gan:
            return
        noise = self.noise(batch, turn, "photo") if self.config.sample_latents else None
        photo = self.networks.latent(batch.mean, batch.std, noise)
        logits = []
        for name, latent in (("critic photo", photo), ("critic sample", sample)):
            noisy, t, _, _ = self.diffuse(latent, batch, turn, name, self.config.gan_timesteps)
            logits.append(self.networks.logits(noisy, t, batch.prompt, turn.shallow))
        loss = finite(losses.gan_critic_loss(*logits), "The loss critic")
        report.losses["critic"] = loss.item()
        right = torch.cat([logits[0] > 0, logits[1] < 0])
        report.watched["critic_right"] = right.float().mean().item()
        (share * self.config.loss.gan_critic * loss).backward()

    def diffuse(
        self, latent: Tensor, batch: Batch, turn: Turn, purpose: str, timesteps: Range
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The latent at a timestep drawn for each sample: noisy, t `(B,)`, ᾱ_t `(B, 1, 1, 1)`, noise."""
        place = self.config.seed, turn.step, batch.samples, f"{purpose} t"
        t = rng.integers(*place, timesteps.low, timesteps.high).to(latent.device)
        noise = self.noise(batch, turn, purpose)
        alpha_bar = self.table[t][:, None, None, None]
        return diffused(latent, noise, alpha_bar.to(latent)), t, alpha_bar, noise

    def noise(self, batch: Batch, turn: Turn, purpose: str) -> Tensor:
        """Unit noise of a latent's size for each sample."""
        side = self.config.latent_side
        found = rng.normal(self.config.seed, turn.step, batch.samples, purpose, (4, side, side))
        return found.to(self.networks.device, self.networks.exact)

    def _teacher_prompt(self, batch: Batch) -> Prompt:
        if self.config.teacher_prompts == "neutral":
            return batch.prompt
        if batch.teacher_text is None or batch.teacher_pooled is None:
            raise ValueError(
                "teacher_prompts is suffix, but the batch brings no teacher_text and teacher_pooled: encode "
                "the longer prompts too, or set teacher_prompts to neutral."
            )
        return Prompt(batch.teacher_text, batch.teacher_pooled)


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
        values = tuple[Tensor, ...]()
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
        device, sensor_mm = self.networks.device, self.config.lens.sensor_mm
        sensor_mm = batch.sensor_mm.to(device) if sensor_mm is None else sensor_mm
        return Camera(batch.f_number.to(device), batch.focal_mm.to(device), sensor_mm)

    def focused(self, srgb: Tensor, depth_m: Tensor) -> Focus:
        """Where the trained predictor focuses, or the mean depth. Raises NotFinite for what is no focus."""
        if self.config.focus == "mean_depth":
            return Focus(mean_depth(depth_m))
        try:
            distance, scale, _ = self.networks.focus(srgb, depth_m)
            focus, problem = Focus(distance, scale), None
        except ValueError as error:
            focus, problem = Focus(1.0), f"The focus cannot be used: {error}"
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
        distance_m = torch.as_tensor(focus.distance_m)
        scale = torch.as_tensor(focus.scale, dtype=radius.dtype).expand(len(radius))
        report.watched |= {
            "focus_distance_m": distance_m.mean().item(),
            "focus_scale": scale.mean().item(),
            "radius_px": radius.mean().item(),
            "capped_share": (radius > self.config.lens.max_radius_px).float().mean().item(),
            "depth_std_m": depth_m.std().item(),
        }
        report.seen |= {"focus_distance_m": distance_m.detach(), "focus_scale": scale, "coc_px": 2.0 * radius}

    def _focus_term(self, srgb: Tensor, depth_m: Tensor) -> dict[str, Tensor]:
        """Huber distance from the frozen predictor; cut from picture and depth unless the config says so."""
        if not self.config.loss.huber_to_generator:
            srgb, depth_m = srgb.detach(), depth_m.detach()
        focus = self.focused(srgb, depth_m)
        with torch.no_grad():
            reference = self.networks.focus_at_start(srgb, depth_m)[0]
        distance_m = torch.as_tensor(focus.distance_m)
        return {"huber": losses.focus_huber(distance_m, reference, self.config.loss.huber_delta)}


def mean_depth(depth_m: Tensor) -> Tensor:
    """Mean of what is nearer than infinity, `(B, H, W)` -> `(B,)`, m."""
    near = torch.isfinite(depth_m)
    return torch.where(near, depth_m, 0.0).sum(dim=(1, 2)) / near.sum(dim=(1, 2)).clamp_min(1)
