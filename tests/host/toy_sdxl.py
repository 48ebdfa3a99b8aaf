"""A custom node pack for tests: teaches ComfyUI a toy SDXL, and writes files of it under public names.

Linked into the custom_nodes of a test's own server, where every loader then reads real files by its own code:
ComfyUI tells networks apart by their sizes, and this adds one size. All weights are random; a checkpoint with
a text encoder and a decoder, a UNet, two LoRAs and a control LoRA are written when the server starts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import comfy.cldm.cldm
import comfy.lora
import comfy.model_detection
import comfy.ops
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from comfy.taesd.taesd import TAESD
from safetensors.torch import load_file, save_file

sys.path.append(str(Path(__file__).resolve().parent))

from tiny_network import CONTROL_NETWORK, FIXTURE, NETWORK, as_in_the_fixture

TEXT_WIDTH, TOKENS = NETWORK["context_dim"], 16
TEXT_PREFIX = "conditioner.toy."
LORA_LAYERS = ("down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", "mid_block_resnets_0_conv1")
CONTROL_PARTS = ("input_hint_block.", "zero_convs.", "middle_block_out.")


class ToyTokenizer:
    """A text's bytes."""

    def __init__(self, **_):
        pass

    def tokenize_with_weights(self, text, *_, **__):
        return {"toy": (list(text.encode()) + [0] * TOKENS)[:TOKENS]}


class ToyText(torch.nn.Module):
    """Looks every byte up; the pooled prompt is the mean."""

    dtypes = frozenset({torch.float32})

    def __init__(self, device=None, dtype=None, model_options=None):
        super().__init__()
        self.table = torch.nn.Embedding(256, TEXT_WIDTH, device=device, dtype=torch.float32)

    def set_clip_options(self, _):
        pass

    def reset_clip_options(self):
        pass

    def encode_token_weights(self, tokens):
        text = self.table(torch.tensor([tokens["toy"]], device=self.table.weight.device))
        return text, text.mean(1)


class ToySDXL(comfy.supported_models.SDXL):
    unet_config: ClassVar = {
        key: NETWORK[key] for key in ("model_channels", "context_dim", "adm_in_channels")
    }

    def __init__(self, unet_config):
        super().__init__(unet_config)
        self.unet_config |= NETWORK  # the family sets the width of its heads

    def get_model(self, *args, **kwargs):
        return as_in_the_fixture(super().get_model(*args, **kwargs))

    def process_clip_state_dict(self, state_dict):
        return comfy.utils.state_dict_prefix_replace(state_dict, {TEXT_PREFIX: ""}, filter_keys=True)

    def clip_target(self, state_dict=None):
        return comfy.supported_models_base.ClipTarget(ToyTokenizer, ToyText)


def _recognise() -> None:
    comfy.supported_models.models.insert(0, ToySDXL)
    known = comfy.model_detection.model_config_from_diffusers_unet

    def recognised(state_dict):
        first = state_dict.get("conv_in.weight")
        toy = first is not None and first.shape[0] == NETWORK["model_channels"]
        return ToySDXL({}) if toy else known(state_dict)

    comfy.model_detection.model_config_from_diffusers_unet = recognised


def _decoder() -> dict[str, torch.Tensor]:
    """A decoder whose pictures vary; ComfyUI's layers are born unset."""
    autoencoder = TAESD()
    for parameter in autoencoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
        elif parameter.ndim == 1:
            torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        # most of a picture lies between black and white
        last, latent = autoencoder.taesd_decoder[-1], torch.randn(1, 4, 16, 16)
        last.weight *= 0.2 / autoencoder.taesd_decoder(latent).std()
        last.bias.fill_(0.5)
    return autoencoder.state_dict()


def _lora(model) -> dict[str, torch.Tensor]:
    names, tensors = comfy.lora.model_lora_keys_unet(model, {}), {}
    for layer in LORA_LAYERS:
        key = f"lora_unet_{layer}"
        weight = comfy.utils.get_attr(model, names[key])
        down, up = (2, *weight.shape[1:]), (weight.shape[0], 2, *(1 for _ in weight.shape[2:]))
        tensors |= {
            f"{key}.lora_down.weight": torch.randn(down) / 2,
            f"{key}.lora_up.weight": torch.randn(up) / 2,
            f"{key}.alpha": torch.tensor(2.0),
        }
    return tensors


def _control_lora() -> dict[str, torch.Tensor]:
    control = comfy.cldm.cldm.ControlNet(
        **CONTROL_NETWORK, hint_channels=3, dtype=torch.float32, operations=comfy.ops.disable_weight_init
    )
    parts = {k: t for k, t in control.state_dict().items() if k.startswith(CONTROL_PARTS)}
    return {"lora_controlnet": torch.tensor([])} | {k: torch.randn_like(t) * 0.1 for k, t in parts.items()}


def _write() -> None:
    torch.manual_seed(0)
    unet = load_file(FIXTURE / "diffusion_pytorch_model.safetensors")
    config = ToySDXL({})
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device=torch.device("cpu"))
    names = comfy.utils.unet_to_diffusers(NETWORK)
    checkpoint = {f"model.diffusion_model.{names[key]}": tensor for key, tensor in unet.items()}
    checkpoint |= {f"first_stage_model.{key}": tensor for key, tensor in _decoder().items()}
    checkpoint[f"{TEXT_PREFIX}table.weight"] = torch.randn(256, TEXT_WIDTH)
    files = {
        "checkpoints/sd_xl_base_1.0.safetensors": checkpoint,
        "diffusion_models/dmd2_sdxl_4step_unet_fp16.safetensors": unet,
        "loras/dmd2_sdxl_4step_lora_fp16.safetensors": _lora(model),
        "loras/my_style_sdxl.safetensors": _lora(model),
        "controlnet/control-lora-depth-rank128.safetensors": _control_lora(),
    }
    for name, tensors in files.items():
        path = Path(folder_paths.models_dir) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)


_recognise()
_write()
NODE_CLASS_MAPPINGS = {}
