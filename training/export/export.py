"""From a training's weights to the files artists load, with a model card beside them.

    dof_sdxl_4step_fp16.safetensors   the generator by diffusers' names, with its EXIF head where it has one
    dof_sdxl_4step_lora.safetensors   or its LoRA, by the names that ComfyUI reads
    vst_focus.safetensors             the focus predictor: saliency network, scale head and settings
    MODEL_CARD.md                     what they are, where they come from, what their licences allow

Every file appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lens_models.files import atomic
from lens_models.focus.predictor import FocusPredictor, load_predictor, save_predictor
from lens_models.focus.vst.network import VisualSaliencyTransformer, VSTConfig
from lens_models.generator.card import PUBLIC_DMD2_LICENCE, export_metadata
from lens_models.generator.exif_embedding import INPUTS, exif_embedding_from, head_tensors
from lens_models.generator.schedule import FOUR_STEPS
from lens_models.weights import damaged, load_strict, read_metadata, read_weights, without_prefix

from ..data.packed import file_hash
from ..networks.sdxl_unet import build_unet
from .lora_names import lora_tensors

log = logging.getLogger("fine_defocus")

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
SDXL_LICENCE = "CreativeML Open RAIL++-M (derived from SDXL)"
VST_LICENCE = "saliency weights whose authors state no licence: ask them before you share"
GENERATOR, LORA, FOCUS, EXIF = PARTS = ("generator", "lora", "focus", "exif")
#: What a part is called on the card, and where it goes.
_WHAT = {
    GENERATOR: "generator, `models/diffusion_models`",
    LORA: "generator's LoRA, `models/loras`",
    FOCUS: "focus predictor, `models/focus`",
}
CARD = "MODEL_CARD.md"
_UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Provenance:
    """Where weights come from. stage, step: of the training. base: what the generator started from.

    config_hash, data_hash, code_hash: of the configuration, the data set's manifest and the code.
    """

    stage: str = ""
    step: int = 0
    base: str = "SDXL base 1.0"
    config_hash: str = _UNKNOWN
    data_hash: str = _UNKNOWN
    code_hash: str = _UNKNOWN

    @property
    def licence(self) -> str:
        """The generator's: that of what it started from."""
        return PUBLIC_DMD2_LICENCE if "dmd2" in self.base.lower() else SDXL_LICENCE

    @property
    def header(self) -> dict[str, str]:
        """Strings for a file's header, besides the stage."""
        return {f.name: str(getattr(self, f.name)) for f in fields(self) if f.name != "stage"}


@dataclass(frozen=True)
class Exported:
    """A written file. part: of `PARTS`. sha256: of the file; weights_sha256: of the tensors in it."""

    path: Path
    part: str
    tensors: int
    bytes: int
    sha256: str
    weights_sha256: str
    precision: str


@dataclass(frozen=True)
class TrainedWeights:
    """Weights as a training leaves them, and what it says of itself (`state.json`); see `read_state`."""

    tensors: dict[str, dict[str, Tensor]]
    run: Provenance = Provenance()
    timesteps: tuple[int, ...] = FOUR_STEPS
    unet_config: dict[str, Any] | None = None
    predictor: dict[str, Any] | None = None
    lora_alpha: float | None = None


def read_state(
    folder: str | Path | None = None, files: Mapping[str, str | Path] | None = None
) -> TrainedWeights:
    """Weights from a folder, or from files by their part, which come first.

    folder: holds generator.safetensors, lora.safetensors, focus.safetensors and exif.safetensors, as many as
        there are; config.json of a UNet that is not SDXL's; state.json with the fields of `Provenance` and
        `timesteps`, `predictor` (`FocusPredictor.settings`) and `lora_alpha`.
    files: "generator", "lora", "focus" or "exif" to a file of that part.

    Raises FileNotFoundError where there is nothing to export or a named file is missing; ValueError for
    damaged ones.
    """
    chosen = {part: Path(file) for part, file in (files or {}).items()}
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        raise ValueError(f"There is no part {', '.join(unknown)}: the parts are {', '.join(PARTS)}.")
    values, unet_config = {}, None
    if folder is not None:
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder}.")
        found = {part: folder / f"{part}.safetensors" for part in PARTS}
        chosen = {part: file for part, file in found.items() if file.is_file()} | chosen
        values = _read_json(folder / "state.json") or {}
        unet_config = _read_json(folder / "config.json")
    if not set(chosen) & {GENERATOR, LORA, FOCUS}:
        raise FileNotFoundError(
            f"There is nothing to export: {folder or 'the command'} gives none of generator, lora and focus."
        )
    if FOCUS in chosen and chosen[FOCUS].suffix == ".safetensors" and chosen[FOCUS].is_file():
        stated = read_metadata(chosen[FOCUS]).get("predictor")
        values = {**values, "predictor": json.loads(stated)} if stated else values
    return TrainedWeights(
        {part: read_weights(file).tensors for part, file in chosen.items()},
        Provenance(**{f.name: values[f.name] for f in fields(Provenance) if f.name in values}),
        tuple(values.get("timesteps", FOUR_STEPS)),
        unet_config,
        values.get("predictor"),
        values.get("lora_alpha"),
    )


def export_state(state: TrainedWeights, folder: str | Path, *, dtype: str = "fp16") -> list[Exported]:
    """Everything of a state as files for ComfyUI, and the model card; folder: made where it is missing.

    Raises ValueError, in a sentence, for weights that do not make their network; OSError for a full disk.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"dof_sdxl_{len(state.timesteps)}step"
    written = []
    if GENERATOR in state.tensors:
        written.append(export_generator(folder / f"{stem}_{dtype}.safetensors", state, dtype))
    if LORA in state.tensors:
        written.append(export_lora(folder / f"{stem}_lora.safetensors", state, dtype))
    if FOCUS in state.tensors:
        written.append(export_focus(folder / "vst_focus.safetensors", state))
    (folder / CARD).write_text(model_card(written, state.run, state.timesteps), encoding="utf-8")
    return written


def export_generator(path: str | Path, state: TrainedWeights, dtype: str = "fp16") -> Exported:
    """Write a generator that Load AIF Generator and `load_unet` read, with its EXIF head in float32.

    dtype: "fp16", "bf16" or "fp32".

    Raises ValueError for tensors that are missing, left over or of another shape, for numbers that are not
    finite or too large for the precision, and for a head of another width; OSError for a full disk.
    """
    tensors = state.tensors[GENERATOR]
    with torch.device("meta"):
        load_strict(build_unet(state.unet_config), tensors, "The generator")
    content, header = _all_rounded(tensors, dtype), {}
    if EXIF in state.tensors:
        head = exif_embedding_from(without_prefix(state.tensors[EXIF], "linear_1.weight"), "exif.safetensors")
        width = tensors["time_embedding.linear_2.weight"].shape[0]
        if head.width != width:
            raise ValueError(
                f"The EXIF head is {head.width} wide and the generator's time embedding {width}: they are "
                "not of one training."
            )
        content, header = content | _all_rounded(head_tensors(head), "fp32"), {"exif_inputs": INPUTS}
    return _written(Path(path), GENERATOR, content, state, dtype, **header)


def export_lora(path: str | Path, state: TrainedWeights, dtype: str = "fp16") -> Exported:
    """Write a generator's LoRA by the names that ComfyUI reads; see `lora_tensors` for those it takes.

    Raises ValueError for layers that the UNet does not have or that are incomplete; OSError for a full disk.
    """
    with torch.device("meta"):
        layers = {name: tuple(t.shape) for name, t in build_unet(state.unet_config).state_dict().items()}
    tensors = lora_tensors(state.tensors[LORA], state.lora_alpha, layers)
    return _written(Path(path), LORA, _all_rounded(tensors, dtype), state, dtype)


def predictor_from(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> FocusPredictor:
    """The predictor of a state dict; settings: `FocusPredictor.settings`, which shapes alone do not tell.

    Raises ValueError where settings are missing or tensors do not fit them.
    """
    if settings is None:
        raise ValueError(
            "The focus predictor's weights do not say how depth is shown to the network: write them with "
            'lens_models.focus.save_predictor, or add its settings to state.json as "predictor".'
        )
    settings = dict(settings)
    try:
        with torch.device("meta"):
            network = VisualSaliencyTransformer(VSTConfig(**settings.pop("config")))
            predictor = FocusPredictor(network, **settings)
    except (KeyError, TypeError) as error:
        raise ValueError(f"The focus predictor's settings are of another version: {error}.") from error
    load_strict(predictor, {name: tensor.float() for name, tensor in tensors.items()}, "The focus predictor")
    return predictor.eval()


def export_focus(path: Path, state: TrainedWeights) -> Exported:
    """Write a focus predictor, float32, that Load Focus Model and `load_predictor` read, and read it back.

    Raises ValueError for numbers that are not finite; OSError for a full disk.
    """
    run, predictor = state.run, predictor_from(state.tensors[FOCUS], state.predictor)
    tensors = _all_rounded(predictor.state_dict(), "fp32")
    _check_room(path, tensors)
    values, digest = {**run.header, "stage": run.stage, "licence": VST_LICENCE}, weights_hash(tensors)
    save_predictor(path, predictor, {**values, "step": run.step, "weights_sha256": digest})
    load_predictor(path)
    return _described(path, FOCUS, len(tensors), digest, "fp32")


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of the names: whatever the file's header."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def model_card(written: Sequence[Exported], run: Provenance, timesteps: Sequence[int] = FOUR_STEPS) -> str:
    """The card as Markdown, from `training/export/model_card.md`."""
    rows = [
        f"| `{e.path.name}` | {_WHAT[e.part]} | {e.precision} | {e.bytes / 1e6:,.1f} MB | `{e.sha256}` |"
        for e in written
    ]
    licences = [f"- Generator: {run.licence}."] * any(e.part in (GENERATOR, LORA) for e in written)
    licences += [f"- Focus predictor: {VST_LICENCE}."] * any(e.part == FOCUS for e in written)
    template = Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")
    return template.format(
        files="\n".join(rows),
        licences="\n".join(licences),
        timesteps=", ".join(map(str, timesteps)),
        **{**run.header, "stage": run.stage or _UNKNOWN},
    )


def _all_rounded(tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    return {name: _rounded(name, tensor, dtype) for name, tensor in tensors.items()}


def _rounded(name: str, tensor: Tensor, dtype: str) -> Tensor:
    if dtype not in DTYPES:
        raise ValueError(f'"{dtype}" is not a precision: use one of {", ".join(DTYPES)}.')
    if not tensor.isfinite().all():
        raise ValueError(f"{name} holds numbers that are not finite: the training diverged.")
    made = tensor.detach().cpu().to(DTYPES[dtype]).contiguous()
    if not made.isfinite().all():
        raise ValueError(
            f"{name} reaches {tensor.abs().max().item():.3g}, and {dtype} ends at "
            f"{torch.finfo(DTYPES[dtype]).max:.3g}: export as bf16."
        )
    return made


def _written(
    path: Path, part: str, tensors: dict[str, Tensor], state: TrainedWeights, precision: str, **more: str
) -> Exported:
    from safetensors.torch import save_file

    if path.suffix != ".safetensors":
        raise ValueError(f"Weights are written as .safetensors, not as {path.name}.")
    _check_room(path, tensors)
    digest = weights_hash(tensors)
    header = {**state.run.header, "precision": precision, **more, "weights_sha256": digest}
    header = export_metadata(
        timesteps=state.timesteps, licence=state.run.licence, stage=state.run.stage, **header
    )
    with atomic(path) as part_file:
        save_file(tensors, part_file, metadata=header)
    return _described(path, part, len(tensors), digest, precision)


def _described(path: Path, part: str, tensors: int, weights_sha256: str, precision: str) -> Exported:
    size, digest = path.stat().st_size, file_hash(path)
    log.info("%s: %d tensors, %s bytes, sha256 %s", path.name, tensors, f"{size:,}", digest)
    return Exported(path, part, tensors, size, digest, weights_sha256, precision)


def _check_room(path: Path, tensors: Mapping[str, Tensor]) -> None:
    needed = sum(t.numel() * t.element_size() for t in tensors.values())
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OSError(
            f"{path.name} needs {needed / 1e9:.1f} GB and {path.parent} has {free / 1e9:.1f} GB free: make "
            "room or export elsewhere."
        )


def _read_json(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(file) from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold names and values.")
    return content
