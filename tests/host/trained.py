"""A whole training at toy size through the command line: packed sets, stage 1, stage 2, export.

The networks are read from files in their published layouts: the fixtures of the test suite, and a tiny
autoencoder and tiny text encoders that are written here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
import yaml

from tools.provision import REPO

FIXTURES = REPO / "tests" / "fixtures"
#: Width of the fixture's prompts.
TEXT = 32
STEPS = 6


def write_networks(folder: Path) -> dict[str, str]:
    """What a config's `models` names."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    torch.manual_seed(0)
    AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, scaling_factor=0.13025, layers_per_block=1,
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).save_pretrained(folder / "vae")  # fmt: skip
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[])
    settings = CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=TEXT // 2, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, projection_dim=TEXT, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer.save_pretrained(folder / name)
    CLIPTextModel(settings).save_pretrained(folder / "text_encoder")
    CLIPTextModelWithProjection(settings).save_pretrained(folder / "text_encoder_2")
    return {
        "source": "files",
        "teacher": str(FIXTURES / "dmd2"),
        "vae": str(folder / "vae"),
        "text": str(folder),
        "depth": str(FIXTURES / "metric3d" / "single_mlp.safetensors"),
        "focus": str(FIXTURES / "vst" / "state_dict.safetensors"),
    }


def train(folder: Path) -> Path:
    """Everything from synthetic pictures to the folder of exported files."""
    smoke = REPO / "training" / "configs" / "smoke_cpu.yaml"
    # random networks of this size do not stay in float16's numbers for long at a large rate
    rates = {"lr": 1e-5, "fake_lr": 1e-5, "focus_lr": 1e-5}
    common = {
        "extends": str(smoke),
        "steps": STEPS,
        "models": write_networks(folder / "networks"),
        "data": {name: str(folder / "sets" / name) for name in ("deep", "shallow")},
        "optimiser": rates,
    }
    first = {**common, "stage": 1, "output": str(folder / "stage1")}
    second = {**common, "output": str(folder / "stage2")}
    second["models"] = {**common["models"], "generator": first["output"], "fake": first["output"]}
    for name, values in (("stage1", first), ("stage2", second)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    _command("toy-sets", "--config", folder / "stage1.yaml", "--count", 8, "--to", folder / "sets")
    _command("stage1", folder / "stage1.yaml", "--device", "cpu")
    _command("stage2", folder / "stage2.yaml", "--device", "cpu")
    _command("export", "--run", folder / "stage2", "--to", folder / "out")
    return folder / "out"


def _command(*arguments: object) -> None:
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    ran = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert ran.returncode == 0, f"{' '.join(command)}\n{ran.stderr}"
