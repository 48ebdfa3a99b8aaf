"""The editor's search finds the node an artist means, by words of photographers and of other programs."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.host, pytest.mark.browser]

LENSES = {"TAF Lens", "Dr.Bokeh Lens"}
#: What is typed, and the nodes that have to be among the first that are offered.
WORDS = {
    "bokeh": LENSES,
    "dof": {*LENSES, "Focus Overlay"},
    "depth of field": {*LENSES, "Focus Overlay"},
    "shallow depth of field": LENSES,
    "lens": LENSES,
    "lens blur": LENSES,
    "blur": LENSES,
    "blur background": LENSES,
    "portrait": LENSES,
    "defocus": {"TAF Lens"},
    "aperture": {"Aperture Sweep", "Aperture Shape", "Camera"},
    "f-stop": {"Camera", "Aperture Sweep"},
    "f-number": {"Camera"},
    "focal length": {"Camera"},
    "tilt": LENSES,
    "tilt-shift": LENSES,
    "tilt shift": LENSES,
    "miniature": LENSES,
    "rack focus": {"Rack Focus"},
    "focus pull": {"Rack Focus"},
    "focus stack": {"Focus Sweep"},
    "autofocus": {"Focus Point", "Predict Focus"},
    "click": {"Focus Point"},
    "hyperfocal": {"Focus Overlay"},
    "exif": {"Camera from Photo", "Save Photo"},
    "metadata": {"Camera from Photo", "Save Photo"},
    "depth map": {"Estimate Depth", "Depth from Image"},
    "anamorphic": {"Aperture Shape"},
    "xy plot": {"Contact Sheet", "Batch Sweep"},
}
#: How many a person looks at.
FIRST = 8
# what the search box and the node library ask, with every node of ComfyUI beside ours
OFFERED = """words => {
    const pinia = document.querySelector('#vue-app').__vue_app__.config.globalProperties.$pinia
    const service = pinia._s.get('nodeDef').nodeSearchService
    return Object.fromEntries(words.map(w => [w, service.searchNode(w).map(n => n.display_name)]))
}"""


def test_artists_words_find_the_nodes(open_editor):
    offered = open_editor(nodes2=True).page.evaluate(OFFERED, list(WORDS))
    missed = {word: meant - set(offered[word][:FIRST]) for word, meant in WORDS.items()}
    assert {word: names for word, names in missed.items() if names} == {}


def test_the_lenses_are_among_the_essential_nodes(comfy):
    """ComfyUI's filter for them takes any category; ours is the one of core's nodes that change a picture."""
    info = comfy.object_info()
    essential = {what["display_name"]: what.get("essentials_category") for what in info.values()}
    assert (
        {essential[lens] for lens in LENSES}
        == {info["ImageCompare"]["essentials_category"]}
        == {"Image Tools"}
    )
    ours = {n for n, what in info.items() if n.startswith("FineDefocus") and what["essentials_category"]}
    assert ours == {"FineDefocusTAFLens", "FineDefocusDrBokehLens"}
