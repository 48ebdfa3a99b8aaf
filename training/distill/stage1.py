"""Stage 1: the generator of sharp pictures is distilled from the teacher, against the deep set.

Also what both stages share: the student's own sampling, the distribution matching and GAN losses, and the
update of fake score and critic.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lens_models.generator.schedule import alphas_bar, clean_estimate, diffused

from ..config.run import Config, Range
from ..networks.models import Networks, Prompt, frozen
from . import losses
from . import rng as draws
from .batch import Batch, Report, finite
from .relay import LossAt, Segment, Values, one_graph, relay
from .schedule import Turn

#: From the values at a place in the chain to unweighted losses by name.
TermsAt = Callable[..., dict[str, Tensor]]


class Stage1:
    """Turns without a lens. Segments: the student's last step. Losses at its latent."""

    def __init__(self, config: Config, networks: Networks):
        self.config, self.networks = config, networks
        self.table = alphas_bar(device=networks.device)

    def losses(self, batch: Batch, turn: Turn) -> dict[str, Tensor]:
        """The generator's losses by name, unweighted, with one graph through everything."""
        report = Report()
        chain = self._chain(batch, turn, report)
        with frozen(*self.networks.fake):
            values: list[Values] = []
            for segment in chain:
                values.append(segment(*(values[-1] if values else ())))
            return {
                name: term
                for place, terms in self._terms(batch, turn, report).items()
                for name, term in terms(*values[place]).items()
            }

    def backward(self, batch: Batch, turn: Turn, share: float = 1.0) -> Report:
        """Accumulate the gradients of this turn: of the generator in its turns, of the fake score always.

        share: of this batch in the step, 1 / accumulation. Raises NotFinite; what was accumulated is then
        to be thrown away.
        """
        report = Report()
        if turn.generator:
            report.sample = self._generator_backward(batch, turn, report, share)
        else:
            report.sample = self._sampled(batch, turn, report, share)
        self._fake_backward(batch, turn, report, share)
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
            values: Values = ()
            for segment in self._chain(batch, turn, report):
                values = segment(*values)
        return finite(values[0], "The generator's latent")

    def _generator_backward(self, batch: Batch, turn: Turn, report: Report, share: float) -> Tensor:
        chain = self._chain(batch, turn, report)
        by_place = {
            place: self._weighted(terms, report, share)
            for place, terms in self._terms(batch, turn, report).items()
        }
        wanted = self.config.relay and len(chain) > 1
        # with LoRAs the critic's must not be the chosen one when the generator is computed again
        run = relay if wanted or self.config.lora_rank else one_graph
        with frozen(*self.networks.fake):
            values, _ = run(chain, by_place)
        return values[-1][0]

    def _weighted(self, terms: TermsAt, report: Report, share: float) -> LossAt:
        weights = self.config.loss
        lambdas = (weights.dmd, weights.gan * weights.gan_generator, weights.huber)

        def loss(*values: Tensor) -> Tensor:
            found = terms(*values)
            for name, term in found.items():
                report.losses[name] = finite(term, f"The loss {name}").item()
            parts = (found.get(name, 0.0) for name in ("dmd", "gan", "huber"))
            return share * losses.total(*parts, lambdas)

        return loss

    def student_input(self, batch: Batch, turn: Turn) -> Tensor:
        """What the student's trained step k sees, from its own k steps before, float64, no gradient."""
        clean = None
        with torch.no_grad():
            for i in range(turn.k + 1):
                noise = self.noise(batch, turn, f"student {i}").double()
                alpha_bar = self.table[self.config.timesteps[i]]
                noisy = noise if clean is None else diffused(clean, noise, alpha_bar)
                if i < turn.k:
                    clean = self._clean(noisy, batch, i)
        return noisy

    def student_step(self, noisy: Tensor, batch: Batch, turn: Turn) -> Tensor:
        """The trained step: the clean latent."""
        return finite(self._clean(noisy, batch, turn.k), "The generator's latent").to(self.networks.exact)

    def _clean(self, noisy: Tensor, batch: Batch, i: int) -> Tensor:
        t = torch.full((noisy.shape[0],), self.config.timesteps[i], device=noisy.device)
        eps = self.networks.student_eps(noisy, t, batch.prompt, batch.f_number, batch.focal_mm)
        return clean_estimate(noisy, eps.double(), self.table[self.config.timesteps[i]])

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

    def _fake_backward(self, batch: Batch, turn: Turn, report: Report, share: float) -> None:
        """The fake score on the generator's latent, and the critic on it and on photos."""
        sample = report.sample.detach()
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
        t = draws.integers(
            self.config.seed, turn.step, batch.samples, f"{purpose} t", timesteps.low, timesteps.high
        ).to(latent.device)
        noise = self.noise(batch, turn, purpose)
        alpha_bar = self.table[t][:, None, None, None]
        return diffused(latent, noise, alpha_bar.to(latent)), t, alpha_bar, noise

    def noise(self, batch: Batch, turn: Turn, purpose: str) -> Tensor:
        """Unit noise of a latent's size for each sample."""
        side = self.config.latent_side
        found = draws.normal(self.config.seed, turn.step, batch.samples, purpose, (4, side, side))
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
