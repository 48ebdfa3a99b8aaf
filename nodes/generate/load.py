"""Load AIF Generator: what a file is, what its licence allows, and what of it ComfyUI can use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pickle import PickleError
from typing import Any, NamedTuple, cast

import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ...lens_models.generator.card import read_card
from ...lens_models.generator.exif_embedding import load_exif_embedding
from ..shared.inputs import node_schema
from ..shared.messages import messages_ui
from .sdxl import ATTACHMENT, Generator, check_model

UNETS, CHECKPOINTS, LORAS = FOLDERS = ("diffusion_models", "checkpoints", "loras")
NO_FILE = "no model file yet"
NO_BASE = "none"
#: An EXIF head may lie beside its generator under the generator's name with this ending.
BESIDE = ".exif.safetensors"
#: Parts of the names of few-step generators; such files are listed first.
FEW_STEP_MARKS = ("dof_sdxl", "dmd2", "4step", "4_step", "4-step")
_UNREADABLE = (AttributeError, EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError, PickleError)
LORA_MARKS = (".lora_", ".alpha", ".diff")


class Loaded(NamedTuple):
    """A file's networks; CLIP and VAE are None where it has none."""

    model: ModelPatcher
    clip: Any
    vae: Any
    notes: list[str]


def _files() -> list[str]:
    names = [f"{folder}/{name}" for folder in FOLDERS for name in folder_paths.get_filename_list(folder)]
    names = [name for name in names if not name.endswith(BESIDE)]
    return sorted(names, key=lambda name: not any(mark in name.lower() for mark in FEW_STEP_MARKS))


class LoadAIFGeneratorNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusLoadAIFGenerator",
            display_name="Load AIF Generator",
            category="fine defocus/generate",
            description="Loads an SDXL that needs only a few steps, from a diffusion model, a checkpoint or "
            "a LoRA, and shows its licence.",
            search_aliases="dmd2, 4 step, distilled sdxl, load checkpoint, load diffusion model",
            inputs=[
                io.Combo.Input("file", _files() or [NO_FILE]),
                "A distilled SDXL in models/diffusion_models (or unet), models/checkpoints or models/loras. "
                "Few-step names come first.",
                io.Combo.Input(
                    "base", [NO_BASE, *folder_paths.get_filename_list(CHECKPOINTS)], default=NO_BASE
                ),
                "SDXL checkpoint: what a LoRA is put on, and where CLIP and VAE come from when the file has "
                "none.",
            ],
            outputs=[
                io.Model.Output("model", tooltip="For AIF Sampler."),
                io.Clip.Output("clip", tooltip="From the file, else from base."),
                io.Vae.Output("vae", tooltip="From the file, else from base."),
            ],
        )

    @classmethod
    def execute(cls, file, base) -> io.NodeOutput:
        folder, _, name = file.partition("/")
        if folder not in FOLDERS or not name:
            raise ValueError(
                "There is no model file yet. Put a distilled SDXL into models/diffusion_models, "
                "models/checkpoints or models/loras and press R."
            )
        path = Path(folder_paths.get_full_path_or_raise(folder, name))
        card = read_card(path)
        exif = load_exif_embedding(path) or load_exif_embedding(path.with_name(path.stem + BESIDE))
        loaded = _LOADERS[folder](path, base)
        check_model(loaded.model)
        loaded.model.set_attachments(ATTACHMENT, Generator(card, exif))
        summary = card.summary if exif is None else f"{card.summary}; EXIF head"
        if loaded.clip is None or loaded.vae is None:
            lacking = " and ".join(n for n, v in (("CLIP", loaded.clip), ("VAE", loaded.vae)) if v is None)
            loaded.notes.append(f"There is no {lacking} here: choose a base, or load them with other nodes.")
        ui = messages_ui(cls, summary, loaded.notes)
        return io.NodeOutput(loaded.model, loaded.clip, loaded.vae, ui=ui)


def _reading(path: Path, read: Callable[..., Any], **options: Any) -> Any:
    """Call one of ComfyUI's readers; its failure becomes a sentence."""
    try:
        return read(str(path), **options)
    except torch.cuda.OutOfMemoryError:
        raise
    except _UNREADABLE as error:
        raise ValueError(
            f"{path.name} is not a model that ComfyUI knows, or it is damaged ({path.stat().st_size:,} "
            "bytes). Choose an SDXL diffusion model, checkpoint or LoRA, or download it again."
        ) from error


def _checkpoint(path: Path, *, model: bool = True) -> Loaded:
    patcher, clip, vae, *_ = _reading(
        path,
        comfy.sd.load_checkpoint_guess_config,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        output_model=model,
    )
    if getattr(vae, "first_stage_model", None) is None:
        vae = None
    return Loaded(patcher, clip, vae, [])


def _base(base: str, *, model: bool) -> Loaded:
    return _checkpoint(Path(folder_paths.get_full_path_or_raise(CHECKPOINTS, base)), model=model)


def _from_unet(path: Path, base: str) -> Loaded:
    model = _reading(path, comfy.sd.load_diffusion_model)
    if base == NO_BASE:
        return Loaded(model, None, None, [])
    return _base(base, model=False)._replace(model=model)


def _from_checkpoint(path: Path, base: str) -> Loaded:
    loaded = _checkpoint(path)
    if base == NO_BASE or (loaded.clip is not None and loaded.vae is not None):
        return loaded
    more = _base(base, model=False)
    return loaded._replace(clip=loaded.clip or more.clip, vae=loaded.vae or more.vae)


def _from_lora(path: Path, base: str) -> Loaded:
    if base == NO_BASE:
        raise ValueError(
            f"{path.name} is a LoRA, which is put on a model: choose an SDXL checkpoint as base."
        )
    under = _base(base, model=True)
    check_model(under.model)
    return with_lora(under, path)


def with_lora(under: Loaded, path: Path) -> Loaded:
    """The model and CLIP with a LoRA's weights at full strength.

    Raises ValueError when none of its layers are the model's; a note says so when some are not.
    """
    lora, metadata = _reading(path, comfy.utils.load_torch_file, safe_load=True, return_metadata=True)
    model, clip = comfy.sd.load_lora_for_models(
        under.model, under.clip, lora, 1.0, 1.0, lora_metadata=metadata
    )
    model = cast(Any, model)  # one comes back wherever one was given
    layers = {key.split(mark)[0] for key in lora for mark in LORA_MARKS if mark in key}
    used = len(model.patches) + (len(clip.patcher.patches) if clip is not None else 0)
    if not used:
        raise ValueError(
            f"None of the {len(layers)} layers of {path.name} are in this SDXL model: it is a LoRA for "
            "another family, or no LoRA. Choose another file."
        )
    notes = list(under.notes)
    if used < len(layers):
        notes.append(
            f"{used} of the {len(layers)} layers of {path.name} are in this model; the rest are left out."
        )
    return Loaded(model, clip, under.vae, notes)


_LOADERS = {UNETS: _from_unet, CHECKPOINTS: _from_checkpoint, LORAS: _from_lora}
