"""The example workflows in the editor, drawn both ways."""

from __future__ import annotations

import json

import pytest
from browser.templates import EXAMPLES, RENDERERS, check_it_opens_whole, overlapping
from PIL import Image

from tools.provision import REPO

pytestmark = [pytest.mark.browser, pytest.mark.slow]

#: Those that need a generator's files open in test_generate.py.
FROM_A_PHOTO = [path for path in EXAMPLES if not path.stem.startswith("text_to_")]


@RENDERERS
@pytest.mark.parametrize("example", FROM_A_PHOTO, ids=lambda path: path.stem)
def test_an_example_opens_whole(open_editor, comfy, photo, scenes, example, nodes2):
    check_it_opens_whole(open_editor(nodes2), comfy, example, nodes2)


@RENDERERS
def test_the_run_button_makes_the_sheet(open_editor, photo, nodes2):
    workflow = json.loads((REPO / "example_workflows" / "aperture_sweep_photo.json").read_text())
    editor = open_editor(nodes2)
    editor.load(workflow, "aperture sweep")
    entry = editor.run()
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
    editor.page.wait_for_timeout(1500)
    editor.fit()
    editor.screenshot(f"sweep-done-{'nodes2' if nodes2 else 'classic'}")
    assert overlapping(editor.state()["nodes"]) == [], "pictures make nodes grow"
    if nodes2:
        shown = editor.page.evaluate(
            "() => [...document.querySelectorAll('.lg-node img')].filter(i => i.naturalWidth > 0).length"
        )
    else:
        shown = editor.page.evaluate("() => app.graph._nodes.filter(n => n.imgs?.length).length")
    assert shown >= 2, "the sheet and the overlay are to be seen"
    said = editor.page.evaluate(
        "() => Object.fromEntries([...document.querySelectorAll('.fine-defocus-message')]"
        ".filter(e => e.isConnected && e.offsetHeight > 0)"
        ".map(e => [e.textContent, e.scrollHeight - e.clientHeight]))"
    )
    assert len(said) == 3, "depth, sweep and lens say what they did"
    assert any("had no measurement" in text for text in said)
    assert all(hidden <= 0 for hidden in said.values()), "the text fits"
    # the template was saved before the lens had its last widget: that one is added, nothing else changes
    saved = editor.page.evaluate("() => app.graph.serialize()")
    now = {n["id"]: n.get("widgets_values") for n in saved["nodes"]}
    for node in workflow["nodes"]:
        if node["type"].startswith("Fine"):
            values = node["widgets_values"]
            assert now[node["id"]][: len(values)] == values, "what a node says is not saved"
    assert editor.errors == []


@RENDERERS
def test_the_run_button_swaps_lenses(open_editor, photo, nodes2):
    workflow = json.loads((REPO / "example_workflows" / "lens_swap.json").read_text(encoding="utf-8"))
    editor = open_editor(nodes2)
    editor.load(workflow, "lens swap")
    entry = editor.run()
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
    editor.page.wait_for_timeout(1500)
    editor.fit()
    editor.screenshot(f"swap-done-{'nodes2' if nodes2 else 'classic'}")
    assert overlapping(editor.state()["nodes"]) == []
    (layers,) = [n for n in workflow["nodes"] if n["type"] == "PreviewImage"]
    assert len(entry["outputs"][str(layers["id"])]["images"]) == 6
    assert editor.errors == []


def test_the_templates_browser_shows_the_examples(open_editor):
    editor = open_editor(True)
    page = editor.page
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text("Extensions", exact=True).first.click()
    card = page.get_by_text("aperture_sweep_photo").first
    card.wait_for(timeout=15_000)
    page.wait_for_timeout(1000)
    editor.screenshot("templates")
    with Image.open(REPO / "example_workflows" / "aperture_sweep_photo.jpg") as thumbnail:
        wanted = thumbnail.width
    shown = page.evaluate(
        "() => [...document.querySelectorAll('[role=dialog] img')].map(i => i.naturalWidth)"
    )
    assert wanted in shown
    card.click()
    opened = "() => app.graph._nodes.some(n => n.type === 'FineDefocusTAFLens')"
    page.wait_for_function(opened, timeout=15_000)
    assert editor.errors == []
