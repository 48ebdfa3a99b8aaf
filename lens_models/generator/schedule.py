"""The few steps of a distilled eps-prediction generator, and the noise they take.

With `alpha_bar` the cumulative product of 1 − β, as in DDPM (Ho et al. 2020) and in the multi-step generator
of Improved Distribution Matching Distillation (Yin et al. 2024): the first input is pure noise, every step
predicts the clean latent, and the next step takes that latent diffused again with fresh noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

#: Timesteps of SDXL's noise table, and the betas at its ends; the roots of the betas are evenly spaced.
TABLE_LENGTH, BETA_START, BETA_END = 1000, 0.00085, 0.012
#: Numbers of steps that there are schedules for, the trained one first.
STEP_COUNTS = (4, 1, 2, 8)
FOUR_STEPS = (999, 749, 499, 249)
#: The published one-step student is told this timestep while it is given pure noise.
ONE_STEP_STUDENT = (399,)
_SEEDS = 2**64


def timesteps(steps: int) -> tuple[int, ...]:
    """Timesteps of an n-step student: t_k = T − 1 − k T / n with T = 1000.

    >>> timesteps(4)
    (999, 749, 499, 249)
    """
    if steps < 1 or TABLE_LENGTH % steps:
        raise ValueError(
            f"There is no schedule of {steps} steps: the number must divide {TABLE_LENGTH}, as 1, 2, 4 and 8 "
            "do."
        )
    return tuple(TABLE_LENGTH - 1 - k * (TABLE_LENGTH // steps) for k in range(steps))


def alphas_bar(*, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Tensor:
    """SDXL's noise table `(1000,)`: ᾱ_t = Π (1 − β), computed in float64."""
    roots = torch.linspace(BETA_START**0.5, BETA_END**0.5, TABLE_LENGTH, dtype=torch.float64)
    return torch.cumprod(1.0 - roots**2, dim=0).to(device, dtype)


def sigma(alpha_bar: Tensor) -> Tensor:
    """Noise over signal, σ = √((1 − ᾱ) / ᾱ): the variable of ComfyUI's samplers."""
    return ((1.0 - alpha_bar) / alpha_bar).sqrt()


def clean_estimate(noisy: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """x0 = (x_t − √(1 − ᾱ_t) ε) / √ᾱ_t; all `(B, C, H, W)`, alpha_bar a scalar."""
    return (noisy - (1.0 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()


def diffused(clean: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = √ᾱ_t x0 + √(1 − ᾱ_t) ε; all `(B, C, H, W)`, alpha_bar a scalar."""
    return alpha_bar.sqrt() * clean + (1.0 - alpha_bar).sqrt() * noise


def sample_few_steps(
    eps_fn: Callable[[Tensor, int], Tensor],
    noises: Iterable[Tensor],
    timesteps: Sequence[int] = FOUR_STEPS,
    *,
    latent: Tensor | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """The clean latent `(B, C, H, W)` after the last of at least one step, float64.

    eps_fn(noisy, t): the network's eps for a noisy latent, float64. noises: of step after step, unit
    variance, on the device of the result. latent: a clean latent to start from, diffused to the first
    timestep; from noise alone without one. on_step(i, clean): after each step. Differentiable.
    """
    source, clean = iter(noises), latent
    for i, t in enumerate(timesteps):
        noise = next(source).double()
        table = alphas_bar(device=noise.device)
        noisy = noise if clean is None else diffused(clean.to(noise), noise, table[t])
        clean = clean_estimate(noisy, eps_fn(noisy, t).to(noisy), table[t])
        if on_step is not None:
            on_step(i, clean)
    if clean is None:
        raise ValueError("There is nothing to sample: give at least one timestep and its noise.")
    return clean


class ItemNoise:
    """Gaussian noise that belongs to the items of a batch: the same on every device and in every batch.

    Item i has a CPU generator of its own, seeded with `seed + i` (modulo 2^64), that is drawn from once per
    step: so item i of a batch gets what the same item gets alone with seed + i.
    """

    def __init__(self, seed: int, shape: Sequence[int], indices: Sequence[int] | None = None):
        """seed: of item 0; shape: `(B, C, H, W)`; indices: which items these are, where not 0 .. B − 1."""
        count, *self.item_shape = shape
        indices = range(count) if indices is None else indices
        if len(indices) != count:
            raise ValueError(
                f"There are {count} latents but {len(indices)} batch indices: give one for each."
            )
        self.generators = [torch.Generator("cpu").manual_seed((seed + int(i)) % _SEEDS) for i in indices]

    def draw(self) -> Tensor:
        """Noise of the next step, `(B, C, H, W)` float32 on the CPU."""
        return torch.stack([torch.randn(self.item_shape, generator=g) for g in self.generators])
