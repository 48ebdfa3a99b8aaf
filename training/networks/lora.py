"""One UNet for teacher, generator and fake score: its weights are the teacher's, and the other two are LoRAs.

What makes a training of SDXL fit in 24 GB. A LoRA is chosen before a network is called and must still be the
chosen one in the backward pass, where activation checkpointing computes layers again. So every loss is
back-propagated before another network is called: `relay` does that for the generator's.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

GENERATOR, FAKE = "generator", "fake"
#: The layers that DMD2's LoRA of SDXL has, by the ends of diffusers' names: 3.07 million weights per rank.
LAYERS = (
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2",
    "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj",
)  # fmt: skip
#: Module names cannot have dots in them.
_DOT = "/"


class Adapted(nn.Module):
    """The shared UNet with one of its LoRAs, or with none; called like the UNet.

    Its parameters are the LoRA's alone, in float32. The UNet is no child of it, so that a checkpoint does not
    hold it and freezing one network leaves the others as they are.
    """

    def __init__(self, unet: nn.Module, name: str | None):
        super().__init__()
        object.__setattr__(self, "shared", unet)
        object.__setattr__(self, "adapter", name)
        self.weights = nn.ParameterDict(
            {
                key.replace(f".{name}.weight", ".weight").replace(".", _DOT): p
                for key, p in (lora_parameters(unet, name) if name else ())
            }
        )

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["shared"], name)

    def select(self) -> None:
        """Make this LoRA the one that the UNet computes with, or none; nothing becomes trainable by it."""
        with _as_trainable_as_before(self.shared):
            if self.adapter is None:
                self.shared.disable_adapters()
            else:
                self.shared.enable_adapters()
                self.shared.set_adapter(self.adapter)

    def forward(self, *values: Any, **named: Any) -> Any:
        """What the UNet gives."""
        self.select()
        return self.shared(*values, **named)


def peft_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors of an `Adapted` by peft's names."""
    return {key.removeprefix("weights.").replace(_DOT, "."): tensor for key, tensor in tensors.items()}


def share(unet: Any, rank: int, alpha: float) -> tuple[Adapted, Adapted, Adapted]:
    """Teacher, generator and fake score from one UNet, whose own weights are frozen.

    alpha / rank is the LoRAs' strength; untrained they change nothing.
    Raises ImportError, in a sentence, without peft.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ImportError(
            f"A training of LoRAs needs peft, which cannot be imported: pip install peft. ({error})"
        ) from error
    unet.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        for name in (GENERATOR, FAKE):
            settings = LoraConfig(r=rank, lora_alpha=cast(int, alpha), target_modules=list(LAYERS))
            unet.add_adapter(settings, adapter_name=name)
    for name in (GENERATOR, FAKE):
        for _, parameter in lora_parameters(unet, name):
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
    return Adapted(unet, None), Adapted(unet, GENERATOR), Adapted(unet, FAKE)


def lora_parameters(unet: nn.Module, name: str) -> Iterator[tuple[str, nn.Parameter]]:
    """A LoRA's weights by their names in the UNet."""
    for key, parameter in unet.named_parameters():
        if f".lora_A.{name}." in key or f".lora_B.{name}." in key:
            yield key, parameter


@contextmanager
def _as_trainable_as_before(unet: nn.Module) -> Iterator[None]:
    """peft makes what it selects trainable and the rest not; who may train is the turn's to say."""
    before = [(p, p.requires_grad) for key, p in unet.named_parameters() if ".lora_" in key]
    yield
    for parameter, wanted in before:
        parameter.requires_grad_(wanted)


def held_in(unet: nn.Module, dtype: torch.dtype) -> None:
    """Keep the shared weights in this precision and the LoRAs in float32."""
    for key, parameter in unet.named_parameters():
        if ".lora_" not in key:
            parameter.data = parameter.data.to(dtype)
