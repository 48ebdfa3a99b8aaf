"""Focus Point in the life of a graph: another tab and back, copies, bypass, inside a subgraph."""

from __future__ import annotations

import json

import pytest

from tools.provision import REPO

pytestmark = [pytest.mark.browser, pytest.mark.slow]

EXAMPLE = json.loads((REPO / "example_workflows" / "click_to_focus.json").read_text(encoding="utf-8"))
KEPT = ("LoadImage", "FineDefocusLoadDepth", "FineDefocusCamera", "FineDefocusFocusPoint")
FIND = "const node = app.canvas.graph._nodes.find(n => n.type === 'FineDefocusFocusPoint')"
VALUES = f"() => {{ {FIND}; return Object.fromEntries(node.widgets.map(w => [w.name, w.value])) }}"
SHOW = f"""() => {{
    {FIND}
    const {{ ds }} = app.canvas
    ds.scale = 0.9
    ds.offset[0] = 500 / 0.9 - node.pos[0]
    ds.offset[1] = 60 / 0.9 - node.pos[1] + 30
    app.canvas.setDirty(true, true)
}}"""


def graph() -> dict:
    """The example up to Focus Point, whose distance is shown, so that it runs."""
    nodes = [node for node in EXAMPLE["nodes"] if node["type"] in KEPT]
    ids = {node["id"] for node in nodes}
    links = [link for link in EXAMPLE["links"] if {link[1], link[3]} <= ids]
    kept = {link[0] for link in links}
    (point,) = (n for n in nodes if n["type"] == "FineDefocusFocusPoint")
    for node in nodes:
        for slot in node["outputs"]:
            slot["links"] = [i for i in slot["links"] or [] if i in kept]
    point["outputs"][1]["links"] = [90]
    shown = {
        "id": 90, "type": "PreviewAny", "pos": [1100, 60], "size": [240, 120], "flags": {}, "order": 9,
        "mode": 0, "inputs": [{"name": "source", "type": "*", "link": 90}], "outputs": [], "properties": {},
        "widgets_values": [],
    }  # fmt: skip
    links.append([90, point["id"], 1, 90, 0, "*"])
    whole = {**EXAMPLE, "nodes": [*nodes, shown], "links": links, "groups": [], "last_node_id": 90}
    return json.loads(json.dumps({**whole, "last_link_id": 90}))


def has_picture(page) -> None:
    page.wait_for_selector(".fine-defocus-focus:not(.empty)", timeout=20_000)
    page.wait_for_timeout(600)


def click(page, x: float, y: float) -> None:
    box = page.locator(".fine-defocus-focus canvas.picture").bounding_box()
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.wait_for_timeout(400)


def test_tabs_copies_bypass_and_subgraphs(open_editor, photo):
    editor = open_editor(True, viewport={"width": 1700, "height": 1000})
    page = editor.page
    editor.load(graph(), "first")
    page.evaluate(SHOW)
    editor.run()
    has_picture(page)
    click(page, 0.2, 0.3)
    chosen = page.evaluate(VALUES)
    assert chosen["focus_x"] == pytest.approx(0.2, abs=2e-3)

    # another tab and back: the node is new, and nobody tells it of the run
    editor.load(graph(), "second")
    assert page.evaluate(VALUES) != chosen
    page.get_by_text("first", exact=True).first.click()
    page.wait_for_timeout(800)
    has_picture(page)
    assert page.evaluate(VALUES) == chosen

    copy = page.evaluate(
        f"""() => {{
            {FIND}
            const copy = node.clone()
            app.graph.add(copy)
            const values = Object.fromEntries(copy.widgets.map(w => [w.name, w.value]))
            app.graph.remove(copy)
            node.mode = 4
            return values
        }}"""
    )
    assert copy == chosen
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    assert "FineDefocusFocusPoint" not in {node["class_type"] for node in prompt.values()}
    page.evaluate(f"() => {{ {FIND}; node.mode = 0; app.graph.convertToSubgraph(new Set([node])) }}")
    page.wait_for_timeout(800)

    page.evaluate("() => app.canvas.setGraph(app.graph._nodes.find(n => n.subgraph).subgraph)")
    page.wait_for_timeout(800)
    page.evaluate(SHOW)
    entry = editor.run()
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
    has_picture(page)
    click(page, 0.7, 0.6)
    assert page.evaluate(VALUES)["focus_x"] == pytest.approx(0.7, abs=2e-3)
    editor.screenshot("focus-point-in-a-subgraph")
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    (inputs,) = (n["inputs"] for n in prompt.values() if n["class_type"] == "FineDefocusFocusPoint")
    assert inputs["focus_x"] == page.evaluate(VALUES)["focus_x"]
    assert editor.errors == []
