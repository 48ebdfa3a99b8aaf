"""The losses as pure functions: distribution matching (eq. 1), GAN (eq. 2), focus and total (eq. 7).

Latents are `(B, C, H, W)`, logits and distances `(B,)`; every loss is one number.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dmd_gradient(x: Tensor, x_real: Tensor, x_fake: Tensor) -> Tensor:
    """Direction in which the fake score sees `x` too likely and the real one too unlikely (eq. 1).

    g = ((x − x_real) − (x − x_fake)) / mean |x − x_real|, the mean over each sample, as in DMD2.
    x: the generator's latent; x_real, x_fake: clean estimates of x diffused, by teacher and fake score.
    Constant: no gradient. Where a sample cannot be divided (x = x_real) it is 0.
    """
    with torch.no_grad():
        towards_real = x - x_real
        size = towards_real.abs().mean(dim=(1, 2, 3), keepdim=True)
        gradient = (towards_real - (x - x_fake)) / size
        return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def dmd_loss(x: Tensor, gradient: Tensor) -> Tensor:
    """0.5 · mse(x, x − g): its gradient with respect to x is g over the number of elements (eq. 1)."""
    return 0.5 * F.mse_loss(x, (x - gradient).detach())


def gan_generator_loss(fake: Tensor) -> Tensor:
    """softplus(−D(x)): the generator wants its pictures taken for photos (eq. 2)."""
    return F.softplus(-fake).mean()


def gan_critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """softplus(D(x)) + softplus(−D(photo)), each a mean over its batch (eq. 2)."""
    return F.softplus(fake).mean() + F.softplus(-real).mean()


def fake_loss(eps: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the fake score's eps against the noise that was added."""
    return F.mse_loss(eps, noise)


def focus_huber(distance_m: Tensor, reference_m: Tensor, delta: float = 1.0) -> Tensor:
    """Huber distance of the focus from where the frozen predictor puts it (eq. 7), both m.

    e² / 2 up to |e| = delta, then delta · (|e| − delta / 2). The reference is constant.
    """
    return F.huber_loss(distance_m, reference_m.detach(), delta=delta)


def total(
    dmd: Tensor | float, gan: Tensor | float, huber: Tensor | float, weights: tuple[float, float, float]
) -> Tensor | float:
    """λ₁ L_DMD + λ₂ L_GAN + λ₃ L_Huber (eq. 7); the paper's λ are 1, 1, 200."""
    return weights[0] * dmd + weights[1] * gan + weights[2] * huber
