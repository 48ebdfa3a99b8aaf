"""A step of the training, in each of its processes: gradients of a turn's batches, clipping, optimisers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ..config.run import Config
from ..distill import schedule
from ..distill.batch import Batch, NotFinite
from ..distill.schedule import Turn
from ..distill.stages import Stage1, Stage2
from ..networks import fsdp
from ..networks.models import Networks

#: The batch of a turn's accumulation; a pure function of both and of the rank.
Source = Callable[[Turn, int], Batch]


@dataclass(frozen=True)
class Step:
    """For the log: unweighted losses, gradient norms before clipping, numbers and values to be watched."""

    turn: Turn
    losses: Mapping[str, float]
    norms: Mapping[str, float]
    watched: Mapping[str, float]
    rate: float
    seen: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)


class Trainer:
    """Networks, optimisers and stage of a run; `step` is one iteration of the training."""

    def __init__(self, config: Config, networks: Networks):
        """networks: as they shall be trained; sharded ones are sharded and warmed up already."""
        self.config, self.networks = config, networks
        self.stage = (Stage1 if config.stage == 1 else Stage2)(config, networks)
        self.trained = networks.trainable(config)
        self.optimisers = {name: self._optimiser(name, net) for name, net in self.trained.items()}

    def step(self, step: int, source: Source) -> Step:
        """One iteration. Raises NotFinite, with the batch saved into the run's folder."""
        turn = schedule.turn(step, self.config)
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        count = self.config.accumulation
        losses: dict[str, float] = {}
        watched: dict[str, float] = {}
        seen: dict[str, tuple[Tensor, ...]] = {}
        for i in range(count):
            batch = source(turn, i)
            if len(batch.samples) != self.config.batch:
                raise ValueError(
                    f"The config says {self.config.batch} samples per batch and this one has "
                    f"{len(batch.samples)}: make them the same."
                )
            try:
                report = self.stage.backward(batch, turn, 1.0 / count)
            except NotFinite as error:
                raise self._stopped(error, step, i, batch) from error
            for found, sums in ((report.losses, losses), (report.watched, watched)):
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value / count
            for name, values in report.seen.items():
                seen[name] = (*seen.get(name, ()), values)
        norms = self._clipped()
        if not all(torch.isfinite(torch.tensor(norm)) for norm in norms.values()):
            text = ", ".join(f"{name} {norm:g}" for name, norm in norms.items())
            raise self._stopped(NotFinite(f"A gradient is not finite: norms are {text}."), step, i, batch)
        for network in self.trained.values():
            fsdp.reshard(network)
        share = schedule.rate(step, self.config)
        for name in norms:
            for group in self.optimisers[name].param_groups:
                group["lr"] = share * self._rate(name)
            self.optimisers[name].step()
        return Step(turn, losses, norms, watched, share, seen)

    def _clipped(self) -> dict[str, float]:
        """Norms of the networks that have gradients, each held at the limit, alone or with its partner."""
        settings, groups = self.config.optimiser, {}
        for name, net in self.trained.items():
            if parameters := [p for p in net.parameters() if p.grad is not None]:
                alone = settings.clip_separately or name not in ("generator", "focus")
                groups.setdefault(name if alone else "pair", {})[name] = parameters
        norms = {}
        for members in groups.values():
            norm = fsdp.clip([p for parameters in members.values() for p in parameters], settings.clip)
            norms |= dict.fromkeys(members, norm)
        return norms

    def _optimiser(self, name: str, network: nn.Module) -> AdamW:
        settings = self.config.optimiser
        parameters = [p for p in network.parameters() if p.requires_grad]
        decay = settings.weight_decay
        return AdamW(parameters, lr=self._rate(name), betas=settings.betas, weight_decay=decay)

    def _rate(self, name: str) -> float:
        settings = self.config.optimiser
        return {"generator": settings.lr, "focus": settings.focus_lr}.get(name, settings.fake_lr)

    def _stopped(self, error: NotFinite, step: int, i: int, batch: Batch) -> NotFinite:
        """The error with the place of the batch that it came from."""
        from safetensors.torch import save_file

        if not error.here:
            return NotFinite(f"Step {step} stopped: {error}", here=False)
        folder = Path(self.config.output)
        folder.mkdir(parents=True, exist_ok=True)
        # a place in the global batch belongs to one rank alone
        path = folder / f"not_finite_step_{step:06d}_sample_{batch.samples[0]}.safetensors"
        save_file(batch.tensors(), path, metadata={"step": str(step), "accumulation": str(i)})
        return NotFinite(f"Step {step} stopped: {error} The batch is saved as {path}.")
