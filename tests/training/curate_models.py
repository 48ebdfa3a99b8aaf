"""Random networks of a few thousand weights in the folders that transformers reads."""

from __future__ import annotations

from pathlib import Path

import torch

_TEXT = "Yes yes No no a photo of cat dog tree user assistant Is this with and not"
WORDS = tuple(_TEXT.split())


def tokenizer(folder: Path, further: tuple[str, ...]):
    """Whole words; everything else is unknown."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<unk>", "<s>", "</s>", *further, *WORDS]
    words = Tokenizer(models.WordLevel({name: k for k, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    wrapped.add_special_tokens({"additional_special_tokens": list(further)})
    wrapped.save_pretrained(folder)
    return wrapped


def internvl(folder: Path) -> Path:
    """InternVL over a Qwen2 of one layer."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    words = tokenizer(folder, ("<IMG_CONTEXT>", "<img>", "</img>", "<|im_start|>", "<|im_end|>"))
    torch.manual_seed(1)
    config = InternVLConfig(
        vision_config={
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "image_size": [28, 28],
            "patch_size": [7, 7],
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(words),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
        },
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    _loud(InternVLForConditionalGeneration(config)).save_pretrained(folder)
    return folder


def blip2(folder: Path) -> Path:
    """BLIP-2 over an OPT of one layer."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    words = tokenizer(folder, ("<image>",))
    torch.manual_seed(2)
    narrow = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = Blip2Config(
        vision_config={**narrow, "image_size": 28, "patch_size": 14},
        qformer_config={**narrow, "encoder_hidden_size": 16, "vocab_size": len(words)},
        text_config={
            "model_type": "opt",
            "vocab_size": len(words),
            "hidden_size": 16,
            "word_embed_proj_dim": 16,
            "ffn_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "pad_token_id": 0,
        },
        num_query_tokens=3,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    _loud(Blip2ForConditionalGeneration(config)).save_pretrained(folder)
    return folder


def _loud(network):
    """With weights large enough that different pictures get different answers."""
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim >= 2:
                weight.normal_(0.0, 0.5)
    return network
