"""The folder of a run: what it says of itself, and how another run or the export reads it.

OUTPUT/run.json         what its networks are, and the hashes of config, data and code
       config.yaml      with all values
       log.jsonl        a line per step
       checkpoints/     see `checkpoint.py`
       samples/         sample grids
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from lens_models.files import atomic

from ..config.run import Config
from ..config.sections import Paths
from ..export.export import Provenance, TrainedWeights
from ..export.lora_names import is_lora
from ..networks.lora import peft_names
from . import checkpoint

FORMAT = "fine-defocus run 1"
CHECKPOINTS = "checkpoints"
_RUN_FILE = "run.json"


def is_run(path: str | Path) -> bool:
    """Whether a folder is a run's."""
    return (Path(path) / _RUN_FILE).is_file()


def write(
    config: Config, *, unet: Mapping[str, Any], predictor: Mapping[str, Any] | None, data: Mapping[str, str]
) -> Path:
    """Say what the run is; gives its folder.

    unet: the generator's config.json. predictor: `FocusPredictor.settings`. data: identities of the sets.
    """
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "format": FORMAT,
        "stage": str(config.stage),
        "base": config.models.base,
        "timesteps": list(config.timesteps),
        "lora_alpha": (config.lora_alpha or config.lora_rank) if config.lora_rank else None,
        "config_hash": config.hash,
        "data_hash": data_hash(data),
        "code_hash": code_hash(),
        "unet": dict(unet),
        "predictor": dict(predictor) if predictor else None,
    }
    values = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    for name, text in ((_RUN_FILE, json.dumps(content, indent=1) + "\n"), ("config.yaml", values)):
        with atomic(folder / name) as part:
            part.write_text(text, encoding="utf-8")
    return folder


def starting_weights(paths: Paths) -> dict[str, dict[str, Tensor]]:
    """Of "generator" and "fake" where the config names a run's folder, from its newest checkpoint.

    Raises ValueError for a run without a complete one.
    """
    named = {"generator": paths.generator, "fake": paths.fake}
    return {part: read_part(path, part) for part, path in named.items() if path is not None and is_run(path)}


def read_part(path: str | Path, part: str) -> dict[str, Tensor]:
    """Weights of a network of the newest checkpoint. Raises ValueError, in a sentence, without one."""
    return checkpoint.read_model(_newest(Path(path)), part)


def read_run(path: str | Path, step: int | None = None) -> TrainedWeights:
    """What a run has trained, for the export; step: of a checkpoint, the newest when not given.

    Raises ValueError, in a sentence, for a folder that is no run or has no such checkpoint.
    """
    path = Path(path)
    if not is_run(path):
        raise ValueError(f"{path} is not the folder of a run: it has no {_RUN_FILE}.")
    content = json.loads((path / _RUN_FILE).read_text(encoding="utf-8"))
    if content.get("format") != FORMAT:
        raise ValueError(f'{path} is written as "{content.get("format")}" and this version reads "{FORMAT}".')
    folder = _newest(path) if step is None else path / CHECKPOINTS / f"step_{step:06d}"
    tensors: dict[str, dict[str, Tensor]] = {}
    for part in checkpoint.models_in(folder):
        if part == "generator":
            tensors |= _generator(checkpoint.read_model(folder, part))
        elif part == "focus":
            tensors[part] = checkpoint.read_model(folder, part)
    reached = json.loads((folder / "state.json").read_text(encoding="utf-8"))["step"]
    hashes = (content[f"{name}_hash"] for name in ("config", "data", "code"))
    run = Provenance(content["stage"], reached, content["base"], *hashes)
    networks = (content[name] for name in ("unet", "predictor", "lora_alpha"))
    return TrainedWeights(tensors, run, tuple(content["timesteps"]), *networks)


def data_hash(identities: Mapping[str, str]) -> str:
    """One hash of the data sets' own."""
    return hashlib.sha256(json.dumps(dict(identities), sort_keys=True).encode()).hexdigest()[:16]


def code_hash() -> str:
    """Of the Python files of training and lens_models, in the order of their names."""
    digest, root = hashlib.sha256(), Path(__file__).resolve().parents[2]
    for file in sorted([*root.glob("training/**/*.py"), *root.glob("lens_models/**/*.py")]):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _newest(path: Path) -> Path:
    folder = checkpoint.latest(path / CHECKPOINTS)
    if folder is None:
        raise ValueError(f"{path} has no complete checkpoint: let the run save one first.")
    return folder


def _generator(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """By part of the export: a LoRA, a UNet with the embedding of its camera, or a UNet."""
    head = {key.removeprefix("exif."): t for key, t in tensors.items() if key.startswith("exif.")}
    if head:
        tensors = {key.removeprefix("unet."): t for key, t in tensors.items() if key.startswith("unet.")}
    renamed = peft_names(tensors)
    found = {"lora": renamed} if is_lora(renamed) else {"generator": tensors}
    return found | ({"exif": head} if head else {})
