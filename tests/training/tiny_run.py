"""Tiny networks of the real kinds, a batch for them, and a meter of the memory that autograd holds."""

from __future__ import annotations

import dataclasses
import weakref
from pathlib import Path

import torch

from training.config.run import load_config
from training.distill import rng
from training.distill.batch import Batch
from training.networks.build import build
from training.run.loop import Trainer

#: Widths of the tiny UNet's prompt.
TINY_TEXT, TINY_POOLED = 16, 16
SMOKE = Path(__file__).parents[2] / "training" / "configs" / "smoke_cpu.yaml"


def config(*overrides):
    return load_config(SMOKE, overrides)


def networks(settings, *, double: bool = False):
    """The networks, with a focus predictor that looks at its picture and has left its frozen copy."""
    found = build(settings)
    if found.focus is not None:
        perturb(found.focus)
    if double:
        every = [getattr(found, f.name) for f in dataclasses.fields(found)]
        for network in (*found.fake, *(n for n in every if isinstance(n, torch.nn.Module))):
            network.double()
        found.dtype = found.exact = torch.float64
    return found


def perturb(focus, size: float = 0.7):
    """As it is made, a tiny saliency network says the same everywhere and its gradients are rounding."""
    random = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for weight in focus.parameters():
            if weight.ndim == 2 and weight.requires_grad:
                weight.copy_(size / weight.shape[1] ** 0.5 * torch.randn(weight.shape, generator=random))


def batch(turn, settings, samples=(0,), f_number: float = 2.0, place: int = 0):
    side = settings.latent_side
    at = tuple(i + place * len(samples) for i in samples)

    def noise(purpose, *shape):
        return rng.normal(7, turn.step, at, purpose, shape)

    one = torch.ones(len(at))
    return Batch(
        mean=noise("mean", 4, side, side),
        std=0.1 * noise("std", 4, side, side).abs(),
        text=noise("text", 5, TINY_TEXT),
        pooled=noise("pooled", TINY_POOLED),
        f_number=f_number * one,
        focal_mm=35.0 * one,
        sensor_mm=36.0 * one,
        samples=at,
    )


def train(settings, source, nets=None, on_step=lambda step: None) -> Trainer:
    """All steps of a config."""
    trainer = Trainer(settings, nets or build(settings))
    for step in range(settings.steps):
        on_step(trainer.step(step, source))
    return trainer


class SavedBytes:
    """Bytes that autograd keeps for the backward pass at once, weights left out; storages count once."""

    def __init__(self, *kept_anyway: torch.nn.Module):
        self._weights = {p.untyped_storage().data_ptr() for net in kept_anyway for p in net.parameters()}
        self._users: dict[int, int] = {}
        self._now = self.peak = 0

    def __enter__(self):
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept.tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error):
        self._hooks.__exit__(*error)

    def _pack(self, tensor):
        kept = _Kept(tensor)
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if address not in self._weights:
            self._users[address] = self._users.get(address, 0) + 1
            if self._users[address] == 1:
                self._now += size
                self.peak = max(self.peak, self._now)
            weakref.finalize(kept, self._drop, address, size)
        return kept

    def _drop(self, address, size):
        self._users[address] -= 1
        if self._users[address] == 0:
            self._now -= size


class _Kept:
    def __init__(self, tensor):
        self.tensor = tensor
