"""Runs in the host's Python: the files that the training exports, in the nodes that load them.

`python inside_training_export.py REPO WORK` answers with one line of JSON. WORK/out holds the files, and
WORK/merged.safetensors the generator with its LoRA added by hand.
"""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file
from tiny_sdxl import (
    IO,
    NETWORK,
    WORK,
    as_in_the_fixture,
    every_step,
    relative,
    replaced,
    tiny,
    tiny_config,
)

# isort: split
import comfy.model_detection
import comfy.utils
import folder_paths
from pack.lens_models import Camera
from pack.lens_models.depth.convert import DepthMap
from pack.nodes.focus import predict
from pack.nodes.generate import conditioning, load, sdxl

OUT = WORK / "out"
for folder in ("diffusion_models", "loras", "focus"):
    folder_paths.folder_names_and_paths[folder] = ([str(OUT)], folder_paths.supported_pt_extensions)


def generator():
    """Load AIF Generator reads the file; only the recognition of the tiny size is helped."""

    def recognised(tensors):
        return tiny_config() if "conv_in.weight" in tensors else None

    with replaced(comfy.model_detection, "model_config_from_diffusers_unet", recognised):
        loaded = load.LoadAIFGeneratorNode.execute("diffusion_models/dof_sdxl_4step_fp32.safetensors", "none")
    model = loaded.args[0]
    as_in_the_fixture(model.model)
    card = sdxl.attached(model).card
    plain = every_step(model)[-1]
    told = conditioning.CameraConditioningNode.execute(Camera(2.8, 50.0), "EXIF embedding", "", model)
    return {
        "text": loaded.ui["text"], "timesteps": card.timesteps, "stage": card.stage,
        "published": relative(plain, IO["x0_249"]), "told": relative(every_step(told.args[0])[-1], plain),
    }  # fmt: skip


def lora():
    """The LoRA on the plain network is the network with it added by hand."""
    model = tiny()
    loaded = load.Loaded(model, None, None, [])
    with replaced(load, "_base", lambda *_, **__: loaded):
        made = load.LoadAIFGeneratorNode.execute("loras/dof_sdxl_4step_lora.safetensors", "base")
    merged, names = tiny(), comfy.utils.unet_to_diffusers(NETWORK)
    tensors = load_file(WORK / "merged.safetensors")
    merged.model.diffusion_model.load_state_dict({names[k]: t for k, t in tensors.items()})
    with_it, by_hand = every_step(made.args[0])[-1], every_step(merged)[-1]
    return {
        "text": made.ui["text"], "layers": len(made.args[0].patches),
        "by hand": relative(with_it, by_hand), "changed": relative(with_it, every_step(model)[-1]),
    }  # fmt: skip


def focus():
    loaded = predict.LoadFocusModelNode.execute("vst_focus.safetensors")
    seen = load_file(WORK / "seen.safetensors")
    found = predict.PredictFocusNode.execute(
        seen["image"],
        DepthMap(seen["metres"], torch.ones_like(seen["metres"], dtype=torch.bool)),
        "weighted mean",
        0.0,
        0.0,
        loaded.args[0],
    )
    _, distance, scale, saliency, _ = found.args
    return {
        "files": predict.FOLDER.files(), "loaded": loaded.ui["text"], "said": found.ui["text"],
        "distance": distance, "scale": scale, "saliency": (saliency - seen["saliency"]).abs().max().item(),
    }  # fmt: skip


with torch.inference_mode():
    print(json.dumps({"generator": generator(), "lora": lora(), "focus": focus()}))
