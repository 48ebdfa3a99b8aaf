"""What happens at a step, as a pure function of it: no rank can come to another conclusion."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.run import Config
from . import rng


@dataclass(frozen=True)
class Turn:
    """One iteration. The fake score with its critic is updated in every one.

    generator: the generator (and the focus predictor) is updated too. shallow: the picture goes through the
    lens and is compared with the shallow set; else the deep one. k: index of the student's step that is
    trained. gan: the GAN losses count.
    """

    step: int
    generator: bool
    shallow: bool
    k: int
    gan: bool

    @property
    def set_name(self) -> str:
        """The data set that this turn reads: deep or shallow."""
        return "shallow" if self.shallow else "deep"


def turn(step: int, config: Config) -> Turn:
    """The turn at a step, from 0.

    The generator's turns are every `fake_updates`-th. With both sets deep and shallow alternate over them,
    and over the iterations between, so that the fake score sees both sets equally often.
    """
    cycle, within = divmod(step, config.fake_updates)
    k = rng.integers(config.seed, step, [rng.EVERYONE], "student step", 0, len(config.timesteps))[0]
    generator, gan = within == 0, step >= config.loss.gan_from_step
    shallow = "shallow" in config.set_names and (cycle + within) % 2 == 1
    return Turn(step, generator, shallow, int(k), gan)


def turns_before(step: int, config: Config) -> int:
    """Steps before this one that read the same set: its place in the set's own order."""
    if len(config.set_names) == 1:
        return step
    cycle, within = divmod(step, config.fake_updates)
    odd_cycles, even_cycles = cycle // 2, cycle - cycle // 2
    # an even cycle is shallow at odd places, an odd one at even places
    low, high = config.fake_updates // 2, (config.fake_updates + 1) // 2
    shallow = even_cycles * low + odd_cycles * high + (within // 2 if cycle % 2 == 0 else (within + 1) // 2)
    return shallow if (cycle + within) % 2 == 1 else step - shallow


def rate(step: int, config: Config) -> float:
    """Share of the learning rates at a step: rises evenly over the warm-up, then 1."""
    return min(1.0, (step + 1) / max(1, config.optimiser.warmup_steps))
