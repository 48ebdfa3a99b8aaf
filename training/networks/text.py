"""Prompts to what SDXL reads: two CLIP text encoders, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config.run import Config
from .models import Prompt

_LENGTH = 77
#: Widths and depths of SDXL's two encoders, and of two tiny ones.
_SDXL: tuple[dict[str, Any], ...] = (
    {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    {
        "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
        "hidden_act": "gelu", "projection_dim": 1280,
    },
)  # fmt: skip
_TINY_ONE = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_TINY: tuple[dict[str, Any], ...] = (_TINY_ONE, {**_TINY_ONE, "hidden_act": "gelu", "projection_dim": 16})


class TextEncoders(nn.Module):
    """Prompts -> text `(B, 77, D)`, the last layer but one of both encoders, and pooled `(B, P)`.

    Frozen. Longer prompts are cut off at 77 tokens, as SDXL was trained.
    """

    def __init__(self, tokenizers: Sequence[Any], first: nn.Module, second: nn.Module):
        super().__init__()
        self.tokenizers = tuple(tokenizers)
        self.first, self.second = first, second
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, prompts: Sequence[str]) -> Prompt:
        """Encoded prompts, float32, on the encoders' device."""
        layers, pooled = [], torch.empty(0)
        for tokenizer, encoder in zip(self.tokenizers, (self.first, self.second), strict=True):
            tokens = tokenizer(
                list(prompts), padding="max_length", max_length=_LENGTH, truncation=True, return_tensors="pt"
            ).input_ids.to(next(encoder.parameters()).device)
            found = encoder(tokens, output_hidden_states=True)
            layers.append(found.hidden_states[-2])
            pooled = getattr(found, "text_embeds", pooled)
        return Prompt(torch.cat(layers, dim=-1).float(), pooled.float())


def build_text(config: Config, device: torch.device | str = "cpu") -> TextEncoders:
    """The encoders of a run: from the folder `models.text`, untrained at SDXL's size, or tiny.

    Raises ImportError without transformers; ValueError, in a sentence, for a folder that does not hold them.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "The prompts of a training are encoded by transformers, which cannot be imported: "
            f"pip install -r training/requirements.txt. ({error})"
        ) from error
    if config.models.source == "files":
        read = _read(Path(str(config.models.text)), transformers)
        return read.to(device, getattr(torch, config.precision))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return _untrained(_TINY if config.models.source == "tiny" else _SDXL, transformers).to(device)


def _read(folder: Path, transformers: Any) -> TextEncoders:
    kinds = (
        (transformers.CLIPTokenizer, "tokenizer"),
        (transformers.CLIPTokenizer, "tokenizer_2"),
        (transformers.CLIPTextModel, "text_encoder"),
        (transformers.CLIPTextModelWithProjection, "text_encoder_2"),
    )
    missing = [name for _, name in kinds if not (folder / name).is_dir()]
    if missing:
        raise ValueError(
            f"models.text is {folder}, which lacks {', '.join(missing)}: give SDXL's folder in the layout of "
            "diffusers."
        )
    read = []
    for kind, name in kinds:
        try:
            read.append(kind.from_pretrained(folder / name, local_files_only=True))
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder / name} cannot be read: {error}") from error
    return TextEncoders(read[:2], *read[2:])


def _untrained(sizes: Sequence[dict[str, Any]], transformers: Any) -> TextEncoders:
    """Random weights behind a tokenizer that spells: a token for every byte, within a word and at its end."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[])
    ends = {f"{end}_token_id": getattr(tokenizer, f"{end}_token_id") for end in ("bos", "eos", "pad")}
    kinds = (transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection)
    encoders = [
        kind(transformers.CLIPTextConfig(vocab_size=len(vocabulary), **size, **ends))
        for kind, size in zip(kinds, sizes, strict=True)
    ]
    return TextEncoders((tokenizer, tokenizer), *encoders)
