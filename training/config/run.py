"""What a run is: one YAML file, checked before anything is built.

A file may extend another one, and values may be set on the command line (`loss.huber=100`). A field that is
here is obeyed; where the paper leaves something open, the field says so and why its default was chosen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lens_models.depth.metric3d.preprocess import AUTO
from lens_models.generator.schedule import FOUR_STEPS, TABLE_LENGTH

from .load import load_settings
from .sections import Data, Lens, Log, Loss, Optimiser, Part, Paths, Positive, Range, Saving, Weight

_LATENT_PX = 8
#: Settings that change where a run writes and how it is cut into memory, but not what it computes. A run may
#: be resumed with others.
FREE = ("output", "relay", "checkpointing", "vae_unit", "saving", "log")


class Config(Part):
    """A run."""

    stage: Literal[1, 2]
    output: str = Field(default="runs/unnamed", description="Folder of the run.")
    models: Paths = Paths()
    data: Data = Data()
    saving: Saving = Saving()
    log: Log = Log()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    steps: Annotated[int, Field(ge=1)] = Field(default=16_000, description="Iterations: fake updates.")
    batch: Annotated[int, Field(ge=1)] = Field(default=1, description="Samples per rank and accumulation.")
    accumulation: Annotated[int, Field(ge=1)] = Field(default=1, description="Batches per optimiser step.")
    size_px: Annotated[int, Field(ge=_LATENT_PX, multiple_of=_LATENT_PX)] = 1024
    """Side of the square pictures."""
    timesteps: Annotated[tuple[int, ...], Field(min_length=1)] = FOUR_STEPS
    """The student's steps."""
    fake_updates: Annotated[int, Field(ge=1)] = 5
    """Iterations per generator update; every iteration updates the fake score."""
    guidance: Weight = Field(default=8.0, description="CFG of the teacher; its unconditional input is zeros.")
    dmd_timesteps: Range = Range(low=20, high=980)
    gan_timesteps: Range = Range(low=0, high=1000)
    fake_timesteps: Range = Range(low=0, high=1000)
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    lens: Lens = Lens()
    depth_canvas: str | tuple[int, int] = AUTO
    """What the depth network sees: a name, or height and width in multiples of 28 px."""
    mu_fake: Literal["shared", "dof_embed", "separate"] = "shared"
    """Open in the paper, which draws one. "shared": one fake score for both sets. "dof_embed": one with a
    learned vector of the set on its time embedding. "separate": one per set (twice the memory)."""
    critic_heads: Literal["shared", "per_set"] = "shared"
    """Open in the paper: one head of the critic for both sets, or one for each."""
    teacher_prompts: Literal["neutral", "suffix"] = "neutral"
    """Open in the paper. "neutral": the teacher and the fake score read the generator's prompt. "suffix": the
    teacher reads the prompt with words for the depth of field, which the batch brings encoded
    (`teacher_text`)."""
    sample_latents: bool = True
    """Latents of photos and re-encoded pictures are drawn from the autoencoder's distribution; otherwise its
    mean is taken. The same for both, or the critic could tell them apart."""
    lora_rank: Annotated[int, Field(ge=0)] = 0
    """Not 0: generator and fake score are LoRAs of this rank on the teacher's weights, for one GPU of 24 GB.
    The paper trains all weights."""
    lora_alpha: Positive | None = None
    """Strength times rank of the LoRAs; not set: rank."""
    sets: Literal["deep", "both"] = "deep"
    """Sets of stage 1; stage 2 has both. "both": deep and shallow photos in turn and no lens, so that the
    generator makes the blur itself (Table 1, rows 3 and 4)."""
    prompts: Literal["plain", "depth_of_field", "exif"] = "plain"
    """What is added to the captions: nothing; "Deep" or "Shallow Depth-of-Field" (Table 1, row 3); f-number
    and focal length as text."""
    exif_embedding: bool = False
    """The generator reads f-number and focal length by an embedding, which is trained with it (Table 1, row
    4)."""
    focus: Literal["predicted", "mean_depth"] = "predicted"
    """Where the lens of the shallow turns is focused. "mean_depth": at the mean of the depth map with f_s =
    1; nothing is predicted (Table 2, row 3)."""
    train_generator: bool = Field(default=True, description="Off: a frozen generator (Table 2, row 5).")
    train_focus: bool = Field(default=True, description="Off: a frozen focus predictor (Table 1, row 9).")
    relay: bool = True
    """Back-propagate the shallow turn one segment at a time: less memory, same gradients."""
    checkpointing: bool = True
    """Activation checkpointing in all networks that have it."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the UNets' computation; depth, focus, lens and losses stay float32."""
    vae_precision: Literal["float32", "bfloat16"] = "float32"
    """Of the autoencoder; bfloat16 takes half its memory and wants the fp16-fix weights."""
    vae_unit: Literal["block", "resnet"] = "block"
    """What of the autoencoder checkpointing computes again at a time: resnet takes less memory."""

    @model_validator(mode="after")
    def _goes_together(self) -> Config:
        if list(self.timesteps) != sorted({*self.timesteps} & {*range(TABLE_LENGTH)}, reverse=True):
            raise ValueError(
                f"timesteps are {list(self.timesteps)}: they must fall and lie within 0..{TABLE_LENGTH - 1}"
            )
        needed = ["teacher", "vae", "text"]
        if self.stage == 2:
            needed += ["depth", "focus"] if self.focus == "predicted" else ["depth"]
        missing = [name for name in needed if getattr(self.models, name) is None]
        if self.models.source == "files" and missing:
            names = " and ".join(f"models.{name}" for name in missing)
            raise ValueError(f"{names} must be set: give the path of the weights")
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
    """A run's config of a YAML file, as `load_settings` reads it. Raises ConfigError, in a sentence."""
    return load_settings(Config, path, overrides)
