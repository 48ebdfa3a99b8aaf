"""The text encoders: what is read from a folder, what is put side by side, and SDXL's sizes."""

from __future__ import annotations

import shutil

import pytest
import torch

from tests.training.tiny_run import TINY_POOLED, TINY_TEXT, config
from training.networks.text import _SDXL, _untrained, build_text

PROMPTS = ["a red disc before a blue wall", ""]


@pytest.fixture(scope="module")
def made():
    return build_text(config())


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for name, part in zip(
        ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2"),
        (*made.tokenizers, made.first, made.second),
        strict=True,
    ):
        part.save_pretrained(folder / name)
    return folder


def files(folder):
    paths = ("teacher", "vae", "depth", "focus")
    return config("models.source=files", f"models.text={folder}", *(f"models.{p}=elsewhere" for p in paths))


def test_the_last_layers_but_one_side_by_side(made):
    text, pooled = made(PROMPTS)
    assert text.shape == (2, 77, TINY_TEXT)
    assert pooled.shape == (2, TINY_POOLED)
    assert not torch.equal(text[0], text[1])
    tokens = made.tokenizers[0](PROMPTS, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        first, second = (encoder(tokens, output_hidden_states=True) for encoder in (made.first, made.second))
    half = TINY_TEXT // 2
    assert torch.equal(text[..., :half], first.hidden_states[-2])
    assert torch.equal(text[..., half:], second.hidden_states[-2])
    assert torch.equal(pooled, second.text_embeds)


def test_a_saved_folder_gives_the_same(made, folder):
    again = build_text(files(folder))
    for one, other in zip(made(PROMPTS), again(PROMPTS), strict=True):
        assert torch.equal(one, other)


def test_long_prompts_are_cut(made):
    long = "x" * 300
    assert all(torch.equal(a, b) for a, b in zip(made([long]), made([long + "y"]), strict=True))


def test_they_are_frozen(made):
    assert not any(p.requires_grad for p in made.parameters())
    assert not made.training


def test_a_missing_folder_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "text_encoder_2")
    with pytest.raises(ValueError, match=r"which lacks text_encoder_2: give SDXL's folder"):
        build_text(files(tmp_path / "part"))
    (tmp_path / "part" / "text_encoder_2").mkdir()
    with pytest.raises(ValueError, match="text_encoder_2 cannot be read"):
        build_text(files(tmp_path / "part"))


def test_the_sizes_are_sdxls():
    import transformers

    with torch.device("meta"):
        encoders = _untrained(_SDXL, transformers)
    weights = [sum(p.numel() for p in net.parameters()) for net in (encoders.first, encoders.second)]
    # published: 123.06 and 694.66 million with 49,408 tokens; here the vocabulary has 514
    missing = 49_408 - 514
    assert weights[0] + missing * 768 == pytest.approx(123.06e6, rel=1e-4)
    assert weights[1] + missing * 1280 == pytest.approx(694.66e6, rel=1e-4)
    assert encoders.first.config.hidden_size + encoders.second.config.hidden_size == 2048
    assert encoders.second.config.projection_dim == 1280
