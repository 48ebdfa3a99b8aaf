"""The sections of a config. A field that is here is obeyed; where the paper leaves something open, the field
says so and why its default was chosen.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lens_models.generator.schedule import TABLE_LENGTH

Weight = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """Checked values; unknown keys are refused. A long description of a field is the text below it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Range(Part):
    """Timesteps low..high−1, drawn evenly."""

    low: Annotated[int, Field(ge=0)]
    high: Annotated[int, Field(le=TABLE_LENGTH)]

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low} and high {self.high}: low must be less than high")
        return self


class Optimiser(Part):
    """AdamW, one for the generator, one for the fake score with its critic, one for the focus predictor."""

    lr: Positive = Field(default=5e-7, description="Generator; the paper's.")
    fake_lr: Positive = 5e-7
    """Fake score and critic; the paper names one rate for all."""
    focus_lr: Positive = Field(default=5e-7, description="Focus predictor; the paper names one rate for all.")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: Weight = 0.01
    clip: Positive = Field(default=10.0, description="Largest gradient norm; DMD2's.")
    clip_separately: bool = True
    """Open in the paper. Generator and focus predictor have a norm of their own each, so that one of them
    with large gradients does not shrink the steps of the other."""
    warmup_steps: Count = 500
    """Iterations over which the rates rise evenly to their value; DMD2's."""


class Loss(Part):
    """Weights of eq. 7 and of the GAN terms."""

    dmd: Weight = Field(default=1.0, description="First λ of the paper.")
    gan: Weight = Field(default=1.0, description="Second λ of the paper; multiplies gan_generator.")
    huber: Weight = Field(default=200.0, description="Third λ of the paper.")
    gan_generator: Weight = 5e-3
    """Open in the paper, which follows DMD2: DMD2's weight of the generator's GAN loss."""
    gan_critic: Weight = 1e-2
    """Open in the paper, which follows DMD2: DMD2's weight beside the fake score's loss."""
    gan_from_step: Count = Field(default=0, description="First iteration with the GAN losses.")
    huber_delta: Positive = 1.0
    """m. Open in the paper; 1 is the textbook value and the libraries' default."""
    huber_every: Literal["generator", "iteration"] = "generator"
    """Open in the paper. "generator": with the generator's loss, as eq. 7 adds them. "iteration": also on the
    other shallow iterations, where it reaches the focus predictor alone."""
    huber_to_generator: bool = False
    """Open in the paper. Uncut, the Huber term reaches the generator through picture and depth map and
    outweighs its other gradients a thousandfold; cut, picture and depth are constants."""


class Lens(Part):
    """The camera of the shallow turns; f-number and focal length are each sample's own."""

    sensor_mm: Positive | None = None
    """Width of the sensor. Open in the paper. Not set: each sample's own, which the data set holds (36 mm
    where its focal length is the 35 mm equivalent)."""
    max_radius_px: Positive = 64.0
    """Blur radii are held here. Open in the paper; 1/16 of 1024 px. Where it is reached, focus and aperture
    get no gradient; the share is logged."""


class Data(Part):
    """The packed sets (`training/data`)."""

    deep: str | None = Field(default=None, description="Folder of the set of sharp photos.")
    shallow: str | None = Field(default=None, description="Folder of the set of photos with blur.")
    check: bool = True
    """Compare every sample's hash when it is read: about 0.2 ms."""
    max_corrupt_share: Annotated[float, Field(ge=0, le=1)] = 1e-3
    """Samples that cannot be read are replaced and counted; above this share a run stops."""


class Saving(Part):
    """Checkpoints, in `output/checkpoints`."""

    every: Annotated[int, Field(ge=1)] = Field(default=500, description="Steps between checkpoints.")
    keep_last: Annotated[int, Field(ge=1)] = 3
    keep_every: Annotated[int, Field(ge=1)] | None = None
    """Checkpoints of every so many steps are kept for good."""


class Log(Part):
    """What a run shows of itself, in `output`; log.jsonl is always written."""

    samples_every: Count = Field(default=500, description="Steps between sample grids; 0: none.")
    sample_prompts: tuple[str, ...] = (
        "a cyclist waiting at a crossing, shops behind her",
        "a bowl of lemons on a kitchen table, a window behind",
        "a lighthouse above a field of flowers",
        "a dog on a forest path",
    )
    """Each one is a row of the grid, from the same noise every time."""
    histograms_every: Count = 100
    """Steps between histograms of f_d, f_s and CoC; 0: none."""
    tensorboard: bool = False


class Paths(Part):
    """Weights. Nothing is downloaded."""

    source: Literal["files", "random", "tiny"] = "files"
    """Of what: "files", the paths below; "random", the published sizes without training, to measure memory
    and time; "tiny", the same kinds of network in a few thousand weights, for a CPU."""
    teacher: str | None = None
    """Folder or file of SDXL's UNet, with diffusers' names."""
    generator: str | None = None
    """Where training starts: as for teacher, or a run's folder. Not set: as the teacher."""
    fake: str | None = None
    """Where the fake score starts: as for generator. Not set: as the teacher."""
    text: str | None = None
    """Folder of SDXL with tokenizer, tokenizer_2, text_encoder and text_encoder_2."""
    base: str = "SDXL base 1.0"
    """What the teacher's weights are called in exported files; a name with dmd2 in it gives them DMD2's
    licence."""
    vae: str | None = None
    """Folder of SDXL's autoencoder (config.json and weights)."""
    depth: str | None = Field(default=None, description="Metric3Dv2; stage 2.")
    focus: str | None = Field(default=None, description="RGB-D saliency network or focus predictor; stage 2.")
