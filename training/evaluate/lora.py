"""A LoRA added into the weights of a network, for evaluation alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def merge(network: nn.Module, tensors: Mapping[str, Tensor], alpha: float | None = None) -> nn.Module:
    """W += alpha / rank · up · down for every layer of the LoRA; the same network.

    tensors: peft's `LAYER.lora_A.weight` and `LAYER.lora_B.weight`, with or without `unet.` and an adapter's
        name. alpha: strength times rank, rank where None.
    Raises ValueError for layers that the network does not have, that lack a half or do not fit.
    """
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, found, rest = name.partition(".lora_")
        if not found or rest[:1] not in "AB":
            raise ValueError(f"{name} is no tensor of a LoRA by peft's names, LAYER.lora_A.weight.")
        layer = layer.removeprefix("base_model.model.").removeprefix("unet.")
        halves.setdefault(layer, {})[rest[0]] = tensor
    weights = dict(network.named_parameters())
    for layer, both in halves.items():
        weight = weights.get(f"{layer}.weight")
        if weight is None:
            raise ValueError(f"The LoRA has a layer {layer}, and the network does not.")
        if set(both) != {"A", "B"}:
            raise ValueError(f"The LoRA of {layer} has only one half.")
        down, up = (both[side].float() for side in "AB")
        rank = down.shape[0]
        if up.shape[1] != rank or (up.shape[0], *down.shape[1:]) != tuple(weight.shape):
            raise ValueError(
                f"The LoRA of {layer} is {tuple(up.shape)} after {tuple(down.shape)}, and the layer "
                f"{tuple(weight.shape)}: they do not fit."
            )
        change = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        strength = (rank if alpha is None else alpha) / rank
        weight.copy_((weight.float() + strength * change.to(weight.device)).to(weight.dtype))
    return network
