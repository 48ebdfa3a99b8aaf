"""What a run is: one YAML file, checked before anything is built.

A file may extend another one, and values may be set on the command line (`loss.huber=100`). A field that is
here is obeyed; where the paper leaves something open, the field says so and why its default was chosen.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from lens_models.depth.metric3d.preprocess import AUTO
from lens_models.generator.schedule import FOUR_STEPS, TABLE_LENGTH

from .sections import Data, Lens, Log, Loss, Optimiser, Part, Paths, Positive, Range, Saving, Weight

CONFIGS = Path(__file__).parents[1] / "configs"
_LATENT_PX = 8
#: Settings that change where a run writes and how it is cut into memory, but not what it computes. A run may
#: be resumed with others.
FREE = ("output", "relay", "checkpointing", "vae_unit", "saving", "log")


class ConfigError(ValueError):
    """A config that cannot be used; the sentence says which key and what to do."""


class Config(Part):
    """A run."""

    stage: Literal[1, 2]
    output: str = Field("runs/unnamed", description="Folder of the run.")
    models: Paths = Paths()
    data: Data = Data()
    saving: Saving = Saving()
    log: Log = Log()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    steps: Annotated[int, Field(ge=1)] = Field(16_000, description="Iterations: fake updates.")
    batch: Annotated[int, Field(ge=1)] = Field(1, description="Samples per rank and accumulation.")
    accumulation: Annotated[int, Field(ge=1)] = Field(1, description="Batches per optimiser step.")
    size_px: Annotated[int, Field(ge=_LATENT_PX, multiple_of=_LATENT_PX)] = Field(
        1024, description="Side of the square pictures."
    )
    timesteps: Annotated[tuple[int, ...], Field(min_length=1)] = Field(
        FOUR_STEPS, description="The student's steps."
    )
    fake_updates: Annotated[int, Field(ge=1)] = Field(
        5, description="Iterations per generator update; every iteration updates the fake score."
    )
    guidance: Weight = Field(8.0, description="CFG of the teacher; its unconditional input is zeros.")
    dmd_timesteps: Range = Range(low=20, high=980)
    gan_timesteps: Range = Range(low=0, high=1000)
    fake_timesteps: Range = Range(low=0, high=1000)
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    lens: Lens = Lens()
    depth_canvas: str | tuple[int, int] = Field(
        AUTO, description="What the depth network sees: a name, or height and width in multiples of 28 px."
    )
    mu_fake: Literal["shared", "dof_embed", "separate"] = Field(
        "shared",
        description='Open in the paper, which draws one. "shared": one fake score for both sets. '
        '"dof_embed": one that is told the set by a learned vector on its time embedding. "separate": one '
        "per set (twice the memory).",
    )
    critic_heads: Literal["shared", "per_set"] = Field(
        "shared", description="Open in the paper: one head of the critic for both sets, or one for each."
    )
    teacher_prompts: Literal["neutral", "suffix"] = Field(
        "neutral",
        description='Open in the paper. "neutral": the teacher and the fake score read the generator\'s '
        'prompt. "suffix": the teacher reads the prompt with words for the depth of field, which the batch '
        "brings encoded (`teacher_text`).",
    )
    sample_latents: bool = Field(
        True,
        description="Latents of photos and re-encoded pictures are drawn from the autoencoder's "
        "distribution; otherwise its mean is taken. The same for both, or the critic could tell them apart.",
    )
    lora_rank: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Not 0: generator and fake score are LoRAs of this rank on the teacher's weights, for "
        "one GPU of 24 GB. The paper trains all weights.",
    )
    lora_alpha: Positive | None = Field(None, description="Strength times rank of the LoRAs; not set: rank.")
    sets: Literal["deep", "both"] = Field(
        "deep",
        description='Sets of stage 1; stage 2 has both. "both": deep and shallow photos in turn and no lens, '
        "so that the generator makes the blur itself (Table 1, rows 3 and 4).",
    )
    prompts: Literal["plain", "depth_of_field", "exif"] = Field(
        "plain",
        description='What is added to the captions: nothing; "Deep" or "Shallow Depth-of-Field" (Table 1, '
        "row 3); f-number and focal length as text.",
    )
    exif_embedding: bool = Field(
        False,
        description="The generator is told f-number and focal length by an embedding, which is trained with "
        "it (Table 1, row 4).",
    )
    focus: Literal["predicted", "mean_depth"] = Field(
        "predicted",
        description='Where the lens of the shallow turns is focused. "mean_depth": at the mean of the depth '
        "map with f_s = 1; nothing is predicted (Table 2, row 3).",
    )
    train_generator: bool = Field(True, description="Off: a frozen generator (Table 2, row 5).")
    train_focus: bool = Field(True, description="Off: a frozen focus predictor (Table 1, row 9).")
    relay: bool = Field(
        True,
        description="Back-propagate the shallow turn one segment at a time: less memory, same gradients.",
    )
    checkpointing: bool = Field(True, description="Activation checkpointing in all networks that have it.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of the UNets' computation; depth, focus, lens and losses stay float32."
    )
    vae_precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Of the autoencoder; bfloat16 takes half its memory and wants the fp16-fix weights.",
    )
    vae_unit: Literal["block", "resnet"] = Field(
        "block",
        description="What of the autoencoder checkpointing computes again at a time: resnet takes less "
        "memory.",
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Config:
        if any(not 0 <= t < TABLE_LENGTH for t in self.timesteps) or any(
            a <= b for a, b in zip(self.timesteps, self.timesteps[1:], strict=False)
        ):
            raise ValueError(
                f"timesteps are {list(self.timesteps)}: they must fall and lie within 0..{TABLE_LENGTH - 1}"
            )
        needed = ["teacher", "vae", "text"]
        if self.stage == 2:
            needed += ["depth", "focus"] if self.focus == "predicted" else ["depth"]
        missing = [name for name in needed if getattr(self.models, name) is None]
        if self.models.source == "files" and missing:
            raise ValueError(
                f"models.{' and models.'.join(missing)} must be set: give the path of the weights"
            )
        if self.stage == 2 and not (self.train_generator or self.train_focus):
            raise ValueError("train_generator and train_focus are both off: nothing would be trained")
        if self.stage == 1 and not self.train_generator:
            raise ValueError("train_generator is off: stage 1 trains nothing else")
        if self.stage == 2 and self.sets == "both":
            raise ValueError("sets is both: that is a choice of stage 1, stage 2 has both anyway")
        if self.lora_rank and self.mu_fake == "separate":
            raise ValueError("lora_rank is set and mu_fake is separate: LoRAs share one UNet, use dof_embed")
        if self.focus == "mean_depth" and self.train_focus:
            raise ValueError(
                "focus is mean_depth and train_focus is on: nothing is predicted, set it to false"
            )
        return self

    @property
    def hash(self) -> str:
        """16 hex digits that change with everything that the result depends on."""
        values = self.model_dump(mode="json", exclude=set(FREE))
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def set_names(self) -> tuple[str, ...]:
        """The data sets that the run reads."""
        return ("deep", "shallow") if self.stage == 2 or self.sets == "both" else ("deep",)

    @property
    def latent_side(self) -> int:
        """Side of the latents."""
        return self.size_px // _LATENT_PX


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file with all it extends, then set `dotted.key=value` overrides, and check.

    `extends: OTHER.yaml` is relative to the file that says it; its values count where this file sets none.
    Raises ConfigError, in a sentence, for unknown keys (with the nearest one) and values that do not fit.
    """
    values = _read(Path(path), ())
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f'"{override}" is not an override: write key=value, such as loss.huber=100.')
        _set(values, key.strip(), yaml.safe_load(text))
    return checked(values, str(path))


def named(config: str) -> Path:
    """A config's path; a bare name is one of `training/configs`."""
    path = Path(config)
    if path.suffix or path.exists():
        return path
    found = CONFIGS / f"{config}.yaml"
    if not found.is_file():
        names = sorted(str(p.relative_to(CONFIGS).with_suffix("")) for p in CONFIGS.glob("**/*.yaml"))
        raise ConfigError(f'There is no config "{config}": give a YAML file or one of {", ".join(names)}.')
    return found


def checked(values: Mapping[str, Any], name: str = "The config") -> Config:
    """A config of nested plain values. Raises ConfigError."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        told = "; ".join(_told(problem) for problem in error.errors())
        raise ConfigError(f"{name}: {told}" + ("" if told.endswith("?") else ".")) from error


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise ConfigError(f"{path.name} extends itself: {' > '.join(p.name for p in (*seen, path))}.")
    if not path.is_file():
        raise ConfigError(f"There is no config {path}.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name} is not YAML: {error}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name} must be keys with values, not a {type(values).__name__}.")
    parent = values.pop("extends", None)
    return values if parent is None else _merged(_read(path.parent / str(parent), (*seen, path)), values)


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *folders, last = dotted.split(".")
    for folder in folders:
        values = values.setdefault(folder, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{dotted} cannot be set: {folder} is a value and has no keys.")
    values[last] = value


def _names(model: type[BaseModel], prefix: str = "") -> list[str]:
    """All dotted keys."""
    found = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += _names(field.annotation, f"{prefix}{name}.")
    return found


def _told(problem: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section, _, last = key.rpartition(".")
        near = _nearest(section, last)
        hint = f'; did you mean "{near}"?' if near else ""
        place = f" in {section}" if section else ""
        return f'there is no key "{last}"{place}{hint}'
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key or 'the whole'} {message[0].lower()}{message[1:]}" if key else message


def _nearest(section: str, last: str) -> str | None:
    """The key that was meant: of the same section, of the same name elsewhere, or of a similar one."""
    names = _names(Config)
    ends = [name.rpartition(".")[2] for name in names]
    here = [end for name, end in zip(names, ends, strict=True) if name.rpartition(".")[0] == section]
    if close := difflib.get_close_matches(last, here, n=1):
        return f"{section}.{close[0]}" if section else close[0]
    close = difflib.get_close_matches(last, ends, n=1)
    return names[ends.index(close[0])] if close else None
