"""The pictures of the help pages: existing, used, small, made by the project; a page has one or a reason."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tools.help_workflows import PICTURES
from tools.hero import FRAMES, NAME
from tools.provision import REPO

DOCS = REPO / "web" / "docs"
PAGES = sorted(DOCS.glob("*.md"))
FILES = sorted(path for path in DOCS.iterdir() if path.suffix != ".md")

#: A recording of clicks in the editor: made by tests/browser/test_focus_point_life.py, not by a workflow.
RECORDED = "focus-point.webp"
#: Pages without a picture, and why.
WITHOUT = {
    "FineDefocusAIFSampler": "its pictures need a generator's weights",
    "FineDefocusCameraConditioning": "what it changes shows only in pictures of a generator",
    "FineDefocusLoadAIFGenerator": "loads a file; there is nothing to see",
    "FineDefocusLoadDepthModel": "loads a file; Estimate Depth shows what comes of it",
    "FineDefocusLoadFocusModel": "loads a file; Predict Focus shows what comes of it",
}
WIDEST_PX, LARGEST_BYTES, LARGEST_RECORDING, ALL_BYTES = 640, 25_000, 130_000, 700_000
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]*)\)")


def pictures_on(page: Path) -> list[tuple[str, str]]:
    """Alternative text and target of each picture on a page."""
    return PICTURE.findall(page.read_text(encoding="utf-8"))


def test_every_node_has_a_help_page():
    golden = json.loads((REPO / "tests" / "host" / "golden" / "object_info.json").read_text(encoding="utf-8"))
    assert {page.stem for page in PAGES if page.read_text(encoding="utf-8").strip()} == set(golden)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_what_is_there(page):
    pictures = pictures_on(page)
    assert bool(pictures) != (page.stem in WITHOUT)
    for alternative, target in pictures:
        # the editor looks for it beside the page: a name alone, whose letters a Linux server tells apart
        assert (DOCS / target).name == target
        assert target in [file.name for file in FILES]
        assert len(alternative.split()) >= 5, "the text in its place says what there is to see"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_picture_is_used_small_and_whole(file):
    assert any(file.name == target for page in PAGES for _, target in pictures_on(page))
    with Image.open(file) as picture:
        assert picture.format == "WEBP"
        assert picture.width <= WIDEST_PX
        assert picture.is_animated == (file.name == RECORDED)
        picture.load()
    assert file.stat().st_size <= (LARGEST_RECORDING if file.name == RECORDED else LARGEST_BYTES)


def test_each_can_be_made_anew():
    assert {file.stem for file in FILES} == {*PICTURES, Path(RECORDED).stem}


def test_all_help_is_small():
    assert sum(path.stat().st_size for path in DOCS.iterdir()) <= ALL_BYTES


def test_reasons_are_for_pages():
    assert set(WITHOUT) <= {page.stem for page in PAGES}


def test_the_readme_begins_with_the_animation():
    (_, first), *_ = PICTURE.findall((REPO / "README.md").read_text(encoding="utf-8"))
    assert Path(first).stem == NAME
    with Image.open(REPO / first) as picture:
        # the encoder joins frames that are the same
        assert len(set(FRAMES)) <= picture.n_frames <= len(FRAMES)
        assert picture.info["loop"] == 0, "for ever"
        assert picture.width <= 660
    assert (REPO / first).stat().st_size < 2_500_000
