"""Networks of the pack: their files in ComfyUI's models folder, and their memory in ComfyUI's hands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import comfy.model_management as mm
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher

SUFFIXES = {".safetensors", ".pth", ".pt"}


class ModelFolder:
    """A folder in ComfyUI's models folder, and the weights in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: The menu's entry where there is no file.
        self.no_file = f"no file in models/{name} yet"
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))

    def files(self, usual: str = "") -> list[str]:
        """Names for a menu, those that begin like the `usual` one first."""
        names = [n for n in folder_paths.get_filename_list(self.name) if Path(n).suffix in SUFFIXES]
        stem = usual.partition(".")[0]
        return sorted(names, key=lambda n: (not Path(n).name.startswith(stem), n)) or [self.no_file]

    def path(self, file: str, remedy: str) -> str:
        """The path of a file of the menu. Raises ValueError with the remedy where there is none."""
        if file == self.no_file:
            raise ValueError(remedy)
        return folder_paths.get_full_path_or_raise(self.name, file)


def free_bytes(device: torch.device) -> float:
    """Memory that is free on a device, as ComfyUI counts it."""
    return cast(float, mm.get_free_memory(device))


def wrapped(network: torch.nn.Module) -> ModelPatcher:
    """The network as ComfyUI moves it between the devices."""
    return ModelPatcher(network, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())


def loaded(patcher: ModelPatcher, working_bytes: float) -> torch.device:
    """Bring the whole network onto its device, with room to work there; returns the device."""
    # what is not a layer of ComfyUI's own cannot be loaded in parts, as --novram would
    mm.load_models_gpu([patcher], memory_required=int(working_bytes), force_full_load=True)
    patcher.model.to(patcher.load_device)
    return patcher.load_device
