"""What an evaluation is: one YAML file, checked before anything is loaded. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic.dataclasses import dataclass

from lens_models.depth.metric3d.preprocess import AUTO
from lens_models.stops import FULL_STOPS

from ..config.load import find_config, load_settings
from ..config.sections import Part, Positive, Weight
from .metrics.semantic_sam import SemanticSamOptions

#: Settings that change no sample, only how samples are summed up.
_SUMMARY = ("confidence", "resamples")
_LATENT_PX = 8


class Student(Part):
    """A trained generator, and the focus predictor that was trained with it."""

    generator: str = Field(description="Run's folder, UNet's folder, or exported .safetensors.")
    focus: str | None = Field(default=None, description="Run's folder or file; not set: the untrained one.")


class CameraTokens(Part):
    """Camera Settings as Tokens, from the user's files; see `camera_tokens`."""

    model: str = Field(description="Folder of SD 2.1 in the layout of diffusers.")
    tokens: str = Field(description="The embedding of the four settings, .safetensors or .pth.")
    lora: str = Field(description="The UNet's LoRA by peft's names.")
    lora_alpha: Positive | None = Field(default=None, description="Strength times rank; not set: rank.")
    size_px: Annotated[int, Field(ge=_LATENT_PX, multiple_of=_LATENT_PX)] = 768
    iso: Positive = Field(default=100.0, description="Open in the paper, which varies the aperture alone.")
    exposure_s: Positive = Field(default=0.01, description="Open in the paper, as iso.")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SemanticSam(SemanticSamOptions):
    """Semantic Segment Anything, with the folders of its six networks."""

    kind: Literal["semantic_sam"]


#: A folder of one network, or the mapping of Semantic Segment Anything.
SegmenterChoice = Annotated[
    Annotated[str, Tag("folder")] | Annotated[SemanticSam, Tag("semantic_sam")],
    Discriminator(lambda given: "folder" if isinstance(given, str) else "semantic_sam"),
]


class Metrics(Part):
    """Weights of the metrics; what is not given is a column without numbers."""

    lpips_trunk: str | None = Field(default=None, description="torchvision's AlexNet.")
    lpips_heads: str | None = Field(default=None, description="LPIPS v0.1 of AlexNet.")
    segmenter: SegmenterChoice | None = None
    """Folder of a MaskFormer, Mask2Former or OneFormer, or {kind: semantic_sam} and folders."""
    inception: str | None = Field(default=None, description="FID's Inception-v3.")
    deep: str | None = None
    """Folder of photos that FID of f/10 and above compares with."""
    shallow: str | None = Field(default=None, description="The same for apertures wider than f/10.")

    @model_validator(mode="after")
    def _whole(self) -> Metrics:
        if (self.lpips_trunk is None) != (self.lpips_heads is None):
            raise ValueError("lpips_trunk and lpips_heads go together: give both or none")
        return self


class Evaluation(Part):
    """All that the numbers depend on, besides the prompts."""

    source: Literal["files", "tiny"] = "files"
    """With "tiny" small untrained networks of the same kinds, for a CPU."""
    base: str | None = None
    """SDXL's folder: unet, vae, both tokenizers and encoders."""
    depth: str | None = Field(default=None, description="Metric3Dv2.")
    focus: str | None = Field(default=None, description="The saliency network of rows 6 to 9, as published.")
    controlnet: str | None = Field(default=None, description="Folder of a depth ControlNet of SDXL.")
    students: dict[str, Student] = Field(default={}, description="Generators by the names methods use.")
    camera_tokens: CameraTokens | None = None
    metrics: Metrics = Metrics()
    size_px: Annotated[int, Field(ge=_LATENT_PX, multiple_of=_LATENT_PX)] = 1024
    depth_canvas: str | tuple[int, int] = AUTO
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the UNets; autoencoder, depth, focus and lens stay float32."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """The same noise for every method."""
    f_numbers: Annotated[tuple[Positive, ...], Field(min_length=2)] = FULL_STOPS
    focal_mm: Positive = Field(default=50.0, description="Where the prompts bring none. Open in the paper.")
    sensor_mm: Positive = Field(default=36.0, description="Width of the sensor. Open in the paper.")
    steps: Annotated[int, Field(ge=1)] = 50
    """DDIM steps of SDXL without distillation."""
    guidance: Weight = 7.5
    """CFG of SDXL. Open in the paper; diffusers' usual value."""
    control_scale: Weight = Field(default=1.0, description="Strength of the ControlNet. Open in the paper.")
    max_radius_px: Positive | None = Field(default=None, description="Blur radii are held here.")
    unit_size: Annotated[int, Field(ge=1)] = Field(default=8, description="Prompts per unit of work.")
    sheet_prompts: Annotated[int, Field(ge=0)] = Field(default=4, description="Prompts shown on sheets.")
    keep: bool = False
    """Keep the pictures of all prompts, not of the sheets alone."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    resamples: Annotated[int, Field(ge=100)] = Field(default=2000, description="Of the bootstrap.")

    @model_validator(mode="after")
    def _rising(self) -> Evaluation:
        if sorted(set(self.f_numbers)) != list(self.f_numbers):
            raise ValueError(f"f_numbers are {list(self.f_numbers)}: they must rise")
        if self.steps > 1000 or 1000 % self.steps:
            raise ValueError(f"steps is {self.steps}: it must divide 1000, as 50, 25 and 20 do")
        return self

    @property
    def hash(self) -> str:
        """16 hex digits that change with everything that a sample depends on."""
        values = self.model_dump(mode="json", exclude=set(_SUMMARY))
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_evaluation(config: str | Path, overrides: Iterable[str] = ()) -> Evaluation:
    """As `load_settings`, of a YAML file or by the name of one of training/configs/evaluate."""
    return load_settings(Evaluation, find_config(config, "evaluate"), overrides)
