"""The help pages in the editor's Info panel, with their pictures, in both renderers."""

from __future__ import annotations

import re

import pytest
from browser.templates import RENDERERS

from tools.provision import REPO
from tools.server import PACK

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SELECT = """(type) => {
    app.graph.clear()
    const node = LiteGraph.createNode(type)
    app.graph.add(node)
    node.pos = [200, 200]
    app.canvas.ds.offset = [0, 0]
    app.canvas.ds.scale = 1
    app.canvas.selectNode(node)
    app.canvas.setDirty(true, true)
}"""
WHOLE = """(sources) => {
    const shown = sources.map(source => document.querySelector(`img[src="${source}"]`))
    return shown.every(image => image?.complete && image.naturalWidth > 0)
}"""


@RENDERERS
@pytest.mark.parametrize("node", ["FineDefocusTAFLens", "FineDefocusDepthPreview"])
def test_the_info_panel_shows_the_pictures(open_editor, node, nodes2):
    page_text = (REPO / "web" / "docs" / f"{node}.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", page_text)
    assert pictures
    editor = open_editor(nodes2, viewport={"width": 1500, "height": 1000})
    page = editor.page
    page.evaluate(SELECT, node)
    page.get_by_test_id("info-button").first.click()
    sources = [f"/extensions/{PACK}/docs/{name}" for name in pictures]
    page.wait_for_function(WHOLE, arg=sources, timeout=60_000)
    for i, source in enumerate(sources):
        image = page.locator(f'img[src="{source}"]')
        image.scroll_into_view_if_needed()
        page.wait_for_timeout(300)
        editor.screenshot(f"help-{node}-{i}-{'nodes2' if nodes2 else 'classic'}")
        panel = image.locator("xpath=..").bounding_box()
        assert 0 < image.bounding_box()["width"] <= panel["width"] + 1, "no wider than the panel"
    assert editor.errors == []
