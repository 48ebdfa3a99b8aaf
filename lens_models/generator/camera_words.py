"""The camera told to a text encoder: the text baselines of Table 1."""

from __future__ import annotations

from .. import stops

#: A picture at this f-number or above counts as deep, as in the selection of the training photos.
DEEP_FROM = 10.0
DEEP, SHALLOW = "Deep Depth-of-Field", "Shallow Depth-of-Field"


def depth_of_field(f_number: float) -> str:
    """ "Deep Depth-of-Field" from f/10 on, below it "Shallow Depth-of-Field"."""
    return DEEP if f_number >= DEEP_FROM else SHALLOW


def exif_text(f_number: float, focal_mm: float) -> str:
    """Aperture and focal length as photographers write them: "f/2.8, 50 mm"."""
    return f"{stops.label(f_number)}, {focal_mm:.4g} mm"


def appended(prompt: str, words: str) -> str:
    """The prompt with the words behind it, one comma between them."""
    prompt = prompt.rstrip().rstrip(",").rstrip()
    return f"{prompt}, {words}" if prompt else words
