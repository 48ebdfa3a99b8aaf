"""What a curation is: one YAML file. Where the paper leaves something open, the field says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..config.load import load_settings
from ..config.sections import Part, Positive
from . import STAGES

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
#: Stages that a curation cannot do without.
_NEEDED = ("index", "exif", "rules")


class _Stage(Part):
    #: Leave the stage out; what the one before it kept goes on.
    skip: bool = False


class Index(_Stage):
    """Every file, its hash and what its first bytes say it is."""

    #: Symbolic links to files. They mostly lead to photos that are in the folder anyway. Links to folders are
    #: never followed.
    links: Literal["skip", "follow"] = "skip"
    #: Pictures whose name promises another format than their bytes are.
    wrong_extension: Literal["keep", "drop"] = "keep"


class Exif(_Stage):
    """The header: format, size, and what the camera wrote."""

    timeout_s: Positive = 15.0  # per file; a damaged one may keep a parser busy for ever
    #: Larger ones are dropped unread. The largest camera sensors have 102 megapixels.
    max_megapixels: Positive = 120.0
    #: Pillow's names of the colour modes that are kept. Not said in the paper. CMYK is print work, grey (L)
    #: teaches a generator of colour pictures the wrong thing.
    colour: tuple[str, ...] = ("RGB",)
    #: Keep pictures of 16 bits a channel: scans and exports, seldom a camera's own.
    sixteen_bit: bool = False


class Rules(_Stage):
    """Appendix D. Photos with no f-number in their EXIF are dropped; N = 10 is deep."""

    split_f_number: Positive = 10.0  # shallow below it, deep from it on; the paper's
    least_f_number: Positive = 1.0  # smallest of the shallow set; the paper's
    most_f_number: Positive = 50.0  # largest of the deep set; the paper's
    deep_exposure_s: Positive = 0.1  # longest of the deep set; the paper's
    shallow_exposure_s: Positive | None = None  # longest of the shallow set; the paper sets no limit there
    #: Deep photos without an exposure time. Open in the paper; dropped, as the limit is there against shake
    #: and nothing speaks against it in them.
    no_exposure: Literal["drop", "keep"] = "drop"
    phones: str | None = None  # a table like phones.csv, in place of the one that comes with this program
    #: Phones in the deep set. The paper leaves them out of the shallow one only.
    deep_phones: Literal["drop", "keep"] = "keep"
    #: Shallow photos without maker, model and lens. Open in the paper; dropped, since a phone cannot be ruled
    #: out.
    no_camera: Literal["drop", "keep"] = "drop"
    #: Photos without a 35-mm equivalent and without a sensor size. Open in the paper. "full frame": take the
    #: sensor for 36 mm wide.
    no_sensor: Literal["drop", "full frame"] = "drop"
    #: Photos with only the 35-mm equivalent of their focal length. Open in the paper. Taking the equivalent
    #: for the focal length gives a wrong blur for sensors that are not full frame.
    no_focal: Literal["drop", "35 mm equivalent"] = "drop"
    least_side_px: Count = 1024  # shortest side; not said in the paper, whose pictures are of 1024 px


class Duplicates(_Stage):
    """One of each group of photos that look the same; the largest stays."""

    #: Differing bits of 64 up to which two photos are the same. Not said in the paper.
    distance: Annotated[int, Field(ge=0, le=7)] = 3
    #: Standard deviation, of 255, of the 9 × 8 px thumbnail. Photos below are compared by their bytes alone,
    #: as all flat ones look the same.
    least_contrast: Annotated[float, Field(ge=0.0, le=255.0)] = 4.0


class Blur(_Stage):
    """Deep keeps photos without blur, shallow those with a desirable one."""

    #: "tiny": an untrained network of a few thousand weights, to try the machinery.
    source: Literal["files", "tiny"] = "files"
    weights: str | None = None  # file that `train-blur` wrote
    crop_px: Annotated[int, Field(ge=32)] = 512  # side of the crops and the thumbnail
    crops: Count = 5  # crops in the photo's own pixels: scaling down hides blur
    batch: Count = 8  # photos per call of the network


class Photo(_Stage):
    """Is it a photo, and not a drawing, a screenshot or a collage? The answer's probability is stored."""

    model: str | None = None  # folder of an InternVL model as transformers reads it
    revision: str | None = None  # commit of the model, where `model` is a name on the hub
    #: The paper gives no wording.
    question: str = (
        "Is this a photograph taken with a camera, and not a drawing, a rendering, a screenshot or a "
        "collage? Answer with yes or no."
    )
    least_p_yes: Share = 0.5  # photos below are dropped; not said in the paper
    batch: Count = 8


class Caption(_Stage):
    """BLIP-2's words."""

    model: str | None = None  # folder of a BLIP-2 model as transformers reads it
    revision: str | None = None  # commit of the model, where `model` is a name on the hub
    #: Ending, such as .txt, of files beside the photos that hold their captions; the model writes only those
    #: that are missing.
    beside: str | None = None
    prompt: str = ""  # what the caption continues; nothing is the model's own way
    max_tokens: Count = 40
    batch: Count = 8


class Pack(_Stage):
    """The latents of SDXL's autoencoder, in sets that training reads."""

    #: "tiny": an untrained autoencoder of a few thousand weights.
    source: Literal["files", "random", "tiny"] = "files"
    vae: str | None = None  # folder of the autoencoder with config.json and weights
    size_px: Annotated[int, Field(ge=8, multiple_of=8)] = 1024  # side of the squares
    #: Most samples of a set, those with the smallest keys; the paper has 1.5 million.
    per_set: Count | None = None
    images: bool = True  # store the pictures too, for FID and for encoding them again
    shard_mb: Positive = 1024.0
    batch: Count = 4


class Curation(Part):
    """All stages."""

    photos: Annotated[tuple[str, ...], Field(min_length=1)]  # folders of photos
    output: str  # folder of the tables, the sets and the report
    unit_photos: Count = 512  # files per unit of work, about
    index: Index = Index()
    exif: Exif = Exif()
    rules: Rules = Rules()
    duplicates: Duplicates = Duplicates()
    blur: Blur = Blur()
    photo: Photo = Photo()
    caption: Caption = Caption()
    pack: Pack = Pack()
    report_samples: Count = 24  # pictures on each sheet of the report

    @model_validator(mode="after")
    def _complete(self) -> Curation:
        for name in _NEEDED:
            if getattr(self, name).skip:
                raise ValueError(f"{name}.skip is on: no curation goes without this stage")
        rules = self.rules
        if not rules.least_f_number < rules.split_f_number <= rules.most_f_number:
            raise ValueError(
                f"the f-numbers of the rules are {rules.least_f_number:g}, {rules.split_f_number:g} and "
                f"{rules.most_f_number:g}: they must rise"
            )
        return self

    @property
    def stages(self) -> tuple[str, ...]:
        """Those that are not left out."""
        return tuple(name for name in STAGES if not getattr(self, name).skip)

    def chain(self, stage: str) -> str:
        """12 hex digits that change with the settings of the stage and of all before it."""
        settings: list[Any] = [len(self.photos), self.unit_photos]
        for name in self.stages[: self.stages.index(stage) + 1]:
            settings.append([name, getattr(self, name).model_dump(mode="json", exclude={"batch"})])
        return digest(settings)


def digest(*values: Any) -> str:
    """12 hex digits of plain values."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def load(path: str | Path, overrides: Iterable[str] = ()) -> Curation:
    """The curation's settings of a YAML file, as `load_settings` reads it; its folders made absolute.

    Paths are relative to the folder where the program runs. Raises ConfigError, in a sentence.
    """
    config = load_settings(Curation, path, overrides)
    # workers may run elsewhere
    photos = tuple(str(Path(folder).absolute()) for folder in config.photos)
    return config.model_copy(update={"photos": photos, "output": str(Path(config.output).absolute())})
