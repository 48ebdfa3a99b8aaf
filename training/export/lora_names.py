"""A LoRA's tensors from the names of training to those that ComfyUI reads, or into the weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..data.packed import listed

PREFIX = "lora_unet_"
_DOWN, _UP = "lora_down", "lora_up"
#: peft's names, with or without an adapter's: `LAYER.lora_A.default.weight`.
_PEFT = re.compile(r"^(?:base_model\.model\.|unet\.)?(?P<layer>.+)\.lora_(?P<side>[AB])(?:\.[^.]+)?\.weight$")


def is_lora(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are a LoRA's by peft's names."""
    return any(_PEFT.match(name) for name in tensors)


def lora_tensors(
    tensors: Mapping[str, Tensor], alpha: float | None, layers: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """`lora_unet_LAYER.lora_down.weight`, `.lora_up.weight` and `.alpha` for every layer.

    tensors: peft's `LAYER.lora_A.weight` and `LAYER.lora_B.weight`, or names that are already ComfyUI's.
    alpha: put in where a layer has none of its own; the LoRA's strength is alpha / rank.
    layers: the UNet's tensors with their shapes, by diffusers' names.

    Raises ValueError for layers that are not the UNet's, lack their other half, do not fit, or have no alpha.
    """
    written = {}
    for name, (down, up, own) in _layers(tensors, layers).items():
        layer, own = _comfy(name), alpha if own is None else own
        if own is None:
            raise ValueError(
                f"The LoRA of {layer} does not say its alpha: give the training's, or rank {down.shape[0]} "
                "for full strength."
            )
        written[f"{layer}.{_DOWN}.weight"], written[f"{layer}.{_UP}.weight"] = down, up
        written[f"{layer}.alpha"] = torch.as_tensor(own, dtype=torch.float32)
    return written


@torch.no_grad()
def merge(network: nn.Module, tensors: Mapping[str, Tensor], alpha: float | None = None) -> None:
    """W += alpha / rank · up · down for every layer of a LoRA; tensors as for `lora_tensors`.

    alpha: of layers without one of their own, rank where None. Raises ValueError as `lora_tensors`.
    """
    weights = dict(network.named_parameters())
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    for name, (down, up, own) in _layers(tensors, shapes).items():
        rank, weight = down.shape[0], weights[name]
        change = (up.float().flatten(1) @ down.float().flatten(1)).reshape(weight.shape).to(weight.device)
        strength = float(own if own is not None else alpha or rank) / rank
        weight.copy_((weight.float() + strength * change).to(weight.dtype))


def _layers(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[Tensor, Tensor, Tensor | None]]:
    """Down, up and alpha of every layer by the name of its weight, checked."""
    weights = {_comfy(name): name for name in shapes}
    parts_of: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, part = _place(name)
        parts_of.setdefault(layer, {})[part] = tensor
    unknown = [layer for layer in parts_of if layer not in weights]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of the LoRA's {len(parts_of)} layers are not of this UNet: {listed(unknown)}."
        )
    layers = {}
    for layer, parts in parts_of.items():
        down, up = (parts.get(part) for part in (_DOWN, _UP))
        if down is None or up is None:
            raise ValueError(f"The LoRA of {layer} is incomplete: it has only {', '.join(parts)}.")
        shape = shapes[weights[layer]]
        if down.shape[0] != up.shape[1] or (up.shape[0], *down.shape[1:]) != shape:
            raise ValueError(
                f"The LoRA of {layer} is {tuple(up.shape)} after {tuple(down.shape)}, and the layer {shape}: "
                "they do not fit."
            )
        layers[weights[layer]] = down, up, parts.get("alpha")
    return layers


def _comfy(name: str) -> str:
    """A weight's layer by ComfyUI's name."""
    return PREFIX + name.removesuffix(".weight").replace(".", "_")


def _place(name: str) -> tuple[str, str]:
    """The layer by ComfyUI's name, and which part of it a tensor is."""
    peft = _PEFT.match(name)
    if peft:
        return _comfy(peft["layer"]), _DOWN if peft["side"] == "A" else _UP
    for part, ending in ((_DOWN, ".lora_down.weight"), (_UP, ".lora_up.weight"), ("alpha", ".alpha")):
        if name.startswith(PREFIX) and name.endswith(ending):
            return name.removesuffix(ending), part
    raise ValueError(f"{name} is not a LoRA's tensor: LAYER.lora_A.weight and LAYER.lora_B.weight are known.")
