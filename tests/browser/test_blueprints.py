"""The pack's blueprints: found in the node library, placed whole on an empty graph, and run on the photo."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from browser.templates import RENDERERS, overlapping
from host.toys import write_depth_weights
from PIL import Image

from tools import motorcycle
from tools.provision import REPO

pytestmark = [pytest.mark.browser, pytest.mark.slow]

BLUEPRINTS = sorted((REPO / "subgraphs").glob("*.json"))
BOKEH, SHEET, RACK = (
    f"{name} (Fine Defocus)" for name in ("Photo to Bokeh", "Aperture Sweep Sheet", "Rack Focus Clip")
)
#: A blueprint that was placed, and what is inside it, as plain data.
PLACED = """() => {
    const slots = list => list.map(s => [s.name, String(s.type)])
    const sources = n => n.inputs.filter(i => i.link != null).map(i => {
        const link = n.graph.links.get?.(i.link) ?? n.graph.links[i.link]
        const source = n.graph.getNodeById(link.origin_id)
        return [n.type, i.name, source?.type ?? 'outside', link.origin_slot]
    })
    return app.graph._nodes.map(n => ({
        title: n.title,
        inputs: slots(n.inputs), outputs: slots(n.outputs),
        widgets: n.widgets.map(w => [w.name, w.value]),
        inside: n.subgraph._nodes.map(i => i.type).sort(),
        unknown: n.subgraph._nodes.filter(i => !LiteGraph.registered_node_types[i.type]).length,
        links: n.subgraph._nodes.flatMap(sources).sort(),
    }))
}"""
CONNECT = """(links) => {
    const named = title => app.graph._nodes.find(n => n.title === title)
    for (const [from, output, to, input] of links) {
        const [a, b] = [named(from), named(to)]
        a.connect(a.outputs.findIndex(s => s.name === output), b, b.inputs.findIndex(s => s.name === input))
    }
}"""
ADD = """([type, pos, values]) => {
    const node = LiteGraph.createNode(type)
    app.graph.add(node)
    node.pos = pos
    for (const [name, value] of Object.entries(values)) node.widgets.find(w => w.name === name).value = value
}"""
SET = """([title, values]) => {
    const node = app.graph._nodes.find(n => n.title === title)
    for (const [name, value] of Object.entries(values)) {
        const widget = node.widgets.find(w => w.name === name)
        widget.value = value
        widget.callback?.(value)
    }
}"""


def place(editor, name: str, x: int, y: int) -> None:
    """As a person does: search the node library, click the name, click the canvas."""
    page = editor.page
    search = page.get_by_placeholder("Search Nodes...")
    if not search.is_visible():
        page.get_by_text("Nodes", exact=True).first.click()
    search.fill(name.partition(" (")[0])
    entry = page.get_by_text(name, exact=True).first
    entry.wait_for()
    page.wait_for_timeout(500)
    count = page.evaluate("() => app.graph._nodes.length")
    entry.click()
    page.mouse.move(x - 20, y)
    page.wait_for_timeout(300)
    page.mouse.click(x, y)
    page.wait_for_function("(count) => app.graph._nodes.length === count + 1", arg=count)


def pictures(comfy, entry: dict, name: str) -> list[np.ndarray]:
    """What Save Image wrote under a name."""
    saved = [i for output in entry["outputs"].values() for i in output.get("images", [])]
    saved = sorted((i for i in saved if i["filename"].startswith(name)), key=lambda i: i["filename"])
    return [np.asarray(Image.open(io.BytesIO(comfy.view(i))).convert("RGB"), float) for i in saved]


def sharpness(picture: np.ndarray) -> float:
    """Mean energy of the differences between neighbours."""
    return float((np.diff(picture, axis=0) ** 2).mean() + (np.diff(picture, axis=1) ** 2).mean())


@pytest.fixture(scope="module")
def depth_weights(comfy):
    """A tiny untrained network; a ComfyUI at COMFYUI_URL fetches the real one."""
    if getattr(comfy, "base", None):
        write_depth_weights(comfy.base)


@RENDERERS
def test_every_blueprint_is_found_and_placed_whole(open_editor, depth_weights, nodes2):
    editor = open_editor(nodes2)
    page = editor.page
    assert len(BLUEPRINTS) == 4
    for file in BLUEPRINTS:
        saved = json.loads(file.read_text(encoding="utf-8"))
        (node,), (inner,) = saved["nodes"], saved["definitions"]["subgraphs"]
        page.evaluate("() => app.graph.clear()")
        place(editor, file.stem, 1400, 500)
        page.wait_for_timeout(800)
        (placed,) = page.evaluate(PLACED)
        editor.screenshot(f"blueprint-{file.stem.split()[0].lower()}-{'nodes2' if nodes2 else 'classic'}")

        assert placed["title"] == file.stem
        for side in ("inputs", "outputs"):
            assert placed[side] == [[slot["name"], slot["type"]] for slot in node[side]]
        widgets = [slot["name"] for slot in node["inputs"] if "widget" in slot]
        assert placed["widgets"] == [list(w) for w in zip(widgets, node["widgets_values"], strict=True)]
        assert placed["inside"] == sorted(n["type"] for n in inner["nodes"])
        assert placed["unknown"] == 0
        nodes = {n["id"]: n for n in inner["nodes"]}
        wanted = []
        for link in inner["links"]:
            if target := nodes.get(link["target_id"]):
                source = nodes.get(link["origin_id"], {}).get("type", "outside")
                name = target["inputs"][link["target_slot"]]["name"]
                wanted.append([target["type"], name, source, link["origin_slot"]])
        assert placed["links"] == sorted(wanted)
        assert len(wanted) + len(inner["outputs"]) == len(inner["links"])
    assert editor.errors == []


@RENDERERS
def test_blueprints_run_on_the_photo(open_editor, comfy, photo, depth_weights, nodes2):
    """One feeds the other, as their descriptions say; measured depth for the clip."""
    kind = "nodes2" if nodes2 else "classic"
    editor = open_editor(nodes2)
    page = editor.page
    page.evaluate("() => app.graph.clear()")
    for name, x, y in ((BOKEH, 900, 100), (SHEET, 1500, 100), (RACK, 1500, 800)):
        place(editor, name, x, y)
    page.get_by_text("Nodes", exact=True).first.click()
    page.wait_for_timeout(500)
    corner = page.evaluate("(name) => [...app.graph._nodes.find(n => n.title === name).pos]", BOKEH)
    left, top = corner[0] - 450, corner[1]
    for node in (
        ("LoadImage", [left, top], {"image": photo[0]}),
        ("FineDefocusLoadDepth", [left, top + 460], {"file": photo[1], "unit": "millimetres"}),
        ("FineDefocusCamera", [left + 450, top + 700], {"focal_mm": 105}),
        ("SaveImage", [left + 1700, top - 60], {"filename_prefix": f"bokeh_{kind}"}),
        ("PreviewImage", [left + 1700, top + 300], {}),
        ("SaveImage", [left + 1700, top + 700], {"filename_prefix": f"clip_{kind}"}),
        ("SaveImage", [left + 2100, top + 300], {"filename_prefix": f"sheet_{kind}"}),
    ):
        page.evaluate(ADD, list(node))
    page.evaluate(
        """() => {
            const [photo, depth, camera, bokeh, both, clip, sheet] = app.graph._nodes.slice(3)
            Object.entries({ photo, depth, camera, bokeh, both, clip, sheet })
                .forEach(([title, node]) => { node.title = title })
        }"""
    )
    page.evaluate(SET, [BOKEH, {"f_number": 4, "focal_mm": 60}])
    page.evaluate(SET, [SHEET, {"sweep": "list", "f_numbers": "4, 16"}])
    page.evaluate(SET, [RACK, {"frames": 3, "keyframes": "0: 2.15\n-1: 4.7"}])
    page.evaluate(
        CONNECT,
        [
            ["photo", "IMAGE", BOKEH, "image"],
            [BOKEH, "image", "bokeh", "images"],
            ["photo", "IMAGE", SHEET, "image"],
            ["depth", "depth", SHEET, "depth"],
            [BOKEH, "focus", SHEET, "focus"],
            [BOKEH, "camera", SHEET, "camera"],
            [SHEET, "sheet", "sheet", "images"],
            [SHEET, "images", "both", "images"],
            ["photo", "IMAGE", RACK, "image"],
            ["depth", "depth", RACK, "depth"],
            ["camera", "camera", RACK, "camera"],
            [RACK, "images", "clip", "images"],
        ],
    )
    page.wait_for_timeout(500)
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    ours = {n["class_type"]: n["inputs"] for n in prompt.values() if n["class_type"].startswith("Fine")}
    assert ours["FineDefocusApertureSweep"]["f_numbers"] == "4, 16"
    assert ours["FineDefocusRackFocus"]["keyframes"] == "0: 2.15\n-1: 4.7"
    assert "shape" not in ours["FineDefocusTAFLens"], "what nobody connected stays away"
    cameras = [n["inputs"] for n in prompt.values() if n["class_type"] == "FineDefocusCamera"]
    assert {(c["aperture"], c["f_number"], c["focal_mm"]) for c in cameras} == {
        ("free", 4, 60), ("f/2.8", 2.8, 105),
    }  # fmt: skip

    entry = editor.run()
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
    page.wait_for_timeout(1500)
    page.evaluate("() => app.canvas.deselectAll()")
    editor.fit()
    editor.screenshot(f"blueprints-run-{kind}")
    assert overlapping(editor.state()["nodes"]) == []
    sharp, metres = motorcycle.load()
    sharp = sharp.astype(float)
    (bokeh,), (sheet,) = pictures(comfy, entry, f"bokeh_{kind}"), pictures(comfy, entry, f"sheet_{kind}")
    clip = pictures(comfy, entry, f"clip_{kind}")
    assert bokeh.shape == sharp.shape
    # at f/4 an untrained network's depth leaves much of it sharp; the input itself would be at 1
    assert sharpness(bokeh) < 0.98 * sharpness(sharp)
    assert sheet.shape[0] > sharp.shape[0]
    assert sheet.shape[1] > 2 * sharp.shape[1], "two side by side, and their labels"
    assert [frame.shape for frame in clip] == [sharp.shape] * 3
    # the clip goes from the headlight to the back wall: each is sharp at its own end
    wall = np.argwhere(metres > 4.5)
    top, left_px, bottom, right = (*wall.min(0), *wall.max(0))
    first, last = (sharpness(frame[top:bottom, left_px:right]) for frame in (clip[0], clip[-1]))
    assert first < last
    assert editor.errors == []
