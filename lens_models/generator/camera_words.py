"""The camera in words for a text encoder: the text baselines of Table 1."""

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


def with_camera_words(prompt: str, words: str, f_number: float, focal_mm: float) -> str:
    """The prompt as it is ("plain"), with `depth_of_field` or with `exif_text` behind it ("exif").

    Raises ValueError for other words.
    """
    if words == "plain":
        return prompt
    if words == "depth_of_field":
        return appended(prompt, depth_of_field(f_number))
    if words == "exif":
        return appended(prompt, exif_text(f_number, focal_mm))
    raise ValueError(f'"{words}" are no camera words: use plain, depth_of_field or exif.')


def appended(prompt: str, words: str) -> str:
    """The prompt with the words behind it, one comma between them."""
    prompt = prompt.rstrip().rstrip(",").rstrip()
    return f"{prompt}, {words}" if prompt else words
