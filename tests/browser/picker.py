"""Focus Point on the page, for the tests of it: what to ask of it, what to send it, where to click."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
from PIL import Image

from tools.provision import REPO
from tools.server import PACK

EXAMPLE = REPO / "example_workflows" / "click_to_focus.json"
MARKS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
MARK_PX = 41
STAGE = ".fine-defocus-focus .stage"
NODE = "const node = app.graph._nodes.find(n => n.type === 'FineDefocusFocusPoint')"
VALUES = f"() => {{ {NODE}; return Object.fromEntries(node.widgets.map(w => [w.name, w.value])) }}"
SHARED = f"(await import('/extensions/{PACK}/js/focus/shared.js')).shared"
SHOW = f"""async ([scale, left, top]) => {{
    {NODE}
    const {{ ds }} = app.canvas
    ds.scale = scale
    ds.offset[0] = left / scale - node.pos[0]
    ds.offset[1] = top / scale - node.pos[1] + 30
    app.canvas.setDirty(true, true)
}}"""
# What a run sends, without the run.
HEAR = """([id, output]) => app.graph.getNodeById(id).onExecuted(output)"""
GAUGE = """() => {
    const canvas = document.querySelector('.fine-defocus-focus canvas.picture')
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
    let sum = 0
    for (let i = 0; i < data.length; i += 4) sum += Math.abs(data[i + 1] - (data[i + 5] ?? 0))
    return sum
}"""


def png(array: np.ndarray) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(array.astype(np.uint8)).save(file, "png")
    return file


def sent(comfy, folder, name: str, picture: np.ndarray, near=1.0, far=4.0, **info) -> dict:
    """What Focus Point would send for a picture `(H, W, 3)`: the same files, in the input folder.

    The depth grows from `far` on the left to `near` on the right; without distances all of it is sky.
    """
    height, width = picture.shape[:2]
    codes = np.full((height, width, 3), 255)
    codes[..., :2] = np.linspace(1, 65535, width)[None, :, None] // [256, 1] % 256 if near else 0
    files = {}
    for kind, array in (("preview", picture), ("depth", codes)):
        path = folder / f"{name}-{kind}.png"
        path.write_bytes(png(array).getvalue())
        files[kind] = [{"filename": comfy.upload(path), "subfolder": "", "type": "input"}]
    shared_info = {
        "range": None, "point": [0.5, 0.5], "distance_m": 2.0, "sample": "small patch", "pictures": 1,
        "width": width, "height": height, "near_m": near, "far_m": far, "fx_px": None, "sky": False,
        "camera": None, **info,
    }  # fmt: skip
    return {
        "focus_preview": files["preview"], "focus_depth": files["depth"], "focus_info": [shared_info],
        "text": ["2 m"],
    }  # fmt: skip


def marked(width: int, height: int) -> tuple[np.ndarray, dict]:
    """A grey picture with a square of each colour, and where their middles are, 0..1."""
    picture = np.full((height, width, 3), 60)
    places = {}
    for (name, colour), (x, y) in zip(
        MARKS.items(), ((0.1, 0.15), (0.85, 0.2), (0.33, 0.8), (0.9, 0.88)), strict=True
    ):
        left, top = int(x * width) - MARK_PX // 2, int(y * height) - MARK_PX // 2
        left, top = max(0, left), max(0, top)
        patch = picture[top : top + MARK_PX, left : left + MARK_PX]
        patch[:] = colour
        places[name] = ((left + patch.shape[1] / 2) / width, (top + patch.shape[0] / 2) / height)
    return picture, places


def only_the_node(editor, size=(330, 560), **properties) -> int:
    """A graph with nothing but Focus Point; its id."""
    workflow = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    node = next(n for n in workflow["nodes"] if n["type"] == "FineDefocusFocusPoint")
    node |= {"pos": [0, 0], "size": list(size), "properties": node["properties"] | properties}
    node["inputs"] = [slot | {"link": None} for slot in node["inputs"]]
    node["outputs"] = [slot | {"links": None} for slot in node["outputs"]]
    editor.load(workflow | {"nodes": [node], "links": [], "groups": []}, "focus point")
    return node["id"]


def small_graph() -> dict:
    """The example with the quick lens, and its picture shown only."""
    workflow = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        if node["type"] == "FineDefocusDrBokehLens":
            node["type"] = node["properties"]["Node name for S&R"] = "FineDefocusTAFLens"
            node["inputs"], node["outputs"] = node["inputs"][:5], node["outputs"][:3]
            node["widgets_values"] = [64, "nearest (keeps edges)", 0.0]
        if node["type"] == "SaveImage":
            node["type"] = node["properties"]["Node name for S&R"] = "PreviewImage"
            node["outputs"], node["widgets_values"] = [], []
    return workflow


def stage(editor):
    """The picture on the page: where its points are, and how to click one."""
    box = editor.page.locator(".fine-defocus-focus canvas.picture").bounding_box()

    def at(x, y):
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def share(place):
        return (place[0] - box["x"]) / box["width"], (place[1] - box["y"]) / box["height"]

    def click(x, y, **options):
        editor.page.mouse.click(*at(x, y), **options)

    return SimpleNamespace(at=at, click=click, share=share, width=box["width"])


def has_picture(editor) -> None:
    editor.page.wait_for_selector(".fine-defocus-focus:not(.empty)", timeout=20_000)
    editor.page.wait_for_timeout(600)
