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
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lens_models.depth.preprocess import AUTO
from lens_models.generator.schedule import FOUR_STEPS, TABLE_LENGTH

_LATENT_PX = 8
#: Settings that change where a run writes and how it is cut into memory, but not what it computes.
_NOT_HASHED = ("output", "relay", "checkpointing")

Weight = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]


class ConfigError(ValueError):
    """A config that cannot be used; the sentence says which key and what to do."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Range(_Part):
    """Timesteps low..high−1, drawn evenly."""

    low: Annotated[int, Field(ge=0)]
    high: Annotated[int, Field(le=TABLE_LENGTH)]

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low} and high {self.high}: low must be less than high")
        return self


class Optimiser(_Part):
    """AdamW, one for the generator, one for the fake score with its critic, one for the focus predictor."""

    lr: Positive = Field(5e-7, description="Generator; the paper's.")
    fake_lr: Positive = Field(5e-7, description="Fake score and critic; the paper names one rate for all.")
    focus_lr: Positive = Field(5e-7, description="Focus predictor; the paper names one rate for all.")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: Weight = 0.01
    clip: Positive = Field(10.0, description="Largest gradient norm; DMD2's.")
    clip_separately: bool = Field(
        True,
        description="Open in the paper. Generator and focus predictor have a norm of their own each, so that "
        "one of them with large gradients does not shrink the steps of the other.",
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        500, description="Iterations over which the rates rise evenly to their value; DMD2's."
    )


class Loss(_Part):
    """Weights of eq. 7 and of the GAN terms."""

    dmd: Weight = Field(1.0, description="First λ of the paper.")
    gan: Weight = Field(1.0, description="Second λ of the paper; multiplies gan_generator.")
    huber: Weight = Field(200.0, description="Third λ of the paper.")
    gan_generator: Weight = Field(
        5e-3, description="Open in the paper, which follows DMD2: DMD2's weight of the generator's GAN loss."
    )
    gan_critic: Weight = Field(
        1e-2, description="Open in the paper, which follows DMD2: DMD2's weight beside the fake score's loss."
    )
    gan_from_step: Annotated[int, Field(ge=0)] = Field(0, description="First iteration with the GAN losses.")
    huber_delta: Positive = Field(
        1.0, description="m. Open in the paper; 1 is the textbook value and the libraries' default."
    )
    huber_every: Literal["generator", "iteration"] = Field(
        "generator",
        description='Open in the paper. "generator": with the generator\'s loss, as eq. 7 adds them. '
        '"iteration": also on the other shallow iterations, where it reaches the focus predictor alone.',
    )
    huber_to_generator: bool = Field(
        False,
        description="Open in the paper. Uncut, the Huber term reaches the generator through picture and "
        "depth map and outweighs its other gradients a thousandfold; cut, picture and depth are constants.",
    )


class Lens(_Part):
    """The camera of the shallow turns; f-number and focal length are each sample's own."""

    sensor_mm: Positive | None = Field(
        None,
        description="Width of the sensor. Open in the paper. Not set: each sample's own, which the data set "
        "holds (36 mm where its focal length is the 35 mm equivalent).",
    )
    max_radius_px: Positive = Field(
        64.0,
        description="Blur radii are held here. Open in the paper; 1/16 of 1024 px. Where it is reached, "
        "focus and aperture get no gradient; the share is logged.",
    )


class Paths(_Part):
    """Weights. Nothing is downloaded."""

    source: Literal["files", "random", "tiny"] = Field(
        "files",
        description='"files": the paths below. "random": the published sizes without training, to measure '
        'memory and time. "tiny": the same kinds of network in a few thousand weights, for a CPU.',
    )
    teacher: str | None = Field(None, description="Folder or file of SDXL's UNet, with diffusers' names.")
    generator: str | None = Field(None, description="Where training starts; not set: as the teacher.")
    fake: str | None = Field(None, description="Where the fake score starts; not set: as the teacher.")
    vae: str | None = Field(None, description="Folder of SDXL's autoencoder (config.json and weights).")
    depth: str | None = Field(None, description="Metric3Dv2; stage 2.")
    focus: str | None = Field(None, description="RGB-D saliency network or focus predictor; stage 2.")


class Config(_Part):
    """A run."""

    stage: Literal[1, 2]
    output: str = Field("runs/unnamed", description="Folder of the run.")
    models: Paths = Paths()
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
    train_generator: bool = Field(True, description="Off: a frozen generator (Table 2, row 5).")
    train_focus: bool = Field(True, description="Off: a frozen focus predictor (Table 1, row 9).")
    relay: bool = Field(
        True,
        description="Back-propagate the shallow turn one segment at a time: less memory, same gradients.",
    )
    checkpointing: bool = Field(True, description="Activation checkpointing in all networks that have it.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of the UNets' computation; autoencoder, lens and losses stay float32."
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Config:
        if any(not 0 <= t < TABLE_LENGTH for t in self.timesteps) or any(
            a <= b for a, b in zip(self.timesteps, self.timesteps[1:], strict=False)
        ):
            raise ValueError(
                f"timesteps are {list(self.timesteps)}: they must fall and lie within 0..{TABLE_LENGTH - 1}"
            )
        needed = ["teacher", "vae", *(("depth", "focus") if self.stage == 2 else ())]
        missing = [name for name in needed if getattr(self.models, name) is None]
        if self.models.source == "files" and missing:
            raise ValueError(
                f"models.{' and models.'.join(missing)} must be set: give the path of the weights"
            )
        if self.stage == 2 and not (self.train_generator or self.train_focus):
            raise ValueError("train_generator and train_focus are both off: nothing would be trained")
        if self.stage == 1 and not self.train_generator:
            raise ValueError("train_generator is off: stage 1 trains nothing else")
        return self

    @property
    def hash(self) -> str:
        """16 hex digits that change with everything that the result depends on."""
        values = self.model_dump(mode="json", exclude=set(_NOT_HASHED))
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

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
