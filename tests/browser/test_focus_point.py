"""Focus Point in the real editor, drawn both ways: what is clicked is what the node gets."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from browser.picker import (
    GAUGE,
    HEAR,
    MARKS,
    NODE,
    SHARED,
    SHOW,
    STAGE,
    VALUES,
    has_picture,
    marked,
    only_the_node,
    small_graph,
    stage,
)
from browser.templates import RENDERERS
from PIL import Image
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ZOOMS = (0.5, 1.0, 2.0)
PICTURES = {"landscape": (741, 500), "portrait": (500, 741), "panorama": (900, 240)}


def found(shot: np.ndarray, colour) -> tuple[float, float]:
    """Middle of a colour on a screenshot, in its pixels, edges weighed by how much of it they hold."""
    grey, wanted = np.full(3, 60.0), np.asarray(colour, float)
    toward = wanted - grey
    share = ((shot - grey) @ toward) / (toward @ toward)
    off = np.abs(shot - (grey + share[..., None] * toward)).max(-1)
    weight = np.where((off < 12) & (share > 0.1), share.clip(0, 1), 0)
    y, x = np.indices(weight.shape)
    return (weight * (x + 0.5)).sum() / weight.sum(), (weight * (y + 0.5)).sum() / weight.sum()


@RENDERERS
@pytest.mark.parametrize("dpr", [1, 2])
def test_a_click_is_within_a_pixel(open_editor, output_of, nodes2, dpr, capsys):
    editor = open_editor(nodes2, viewport={"width": 1400, "height": 1300}, device_scale_factor=dpr)
    node = only_the_node(editor, preview_blur=False)
    rows = []
    for name, (width, height) in PICTURES.items():
        picture, places = marked(width, height)
        editor.page.evaluate(HEAR, [node, output_of(name, picture)])
        has_picture(editor)
        for zoom in ZOOMS:
            editor.page.evaluate(SHOW, [zoom, 200, 60])
            editor.page.mouse.move(5, 700)
            editor.page.add_style_tag(content=".fine-defocus-focus .marks { opacity: 0 }")
            editor.page.wait_for_timeout(400)
            shot = np.asarray(Image.open(io.BytesIO(editor.page.screenshot())).convert("RGB"), float)
            box = editor.page.locator(STAGE).bounding_box()
            area = [int(box[side] * dpr) for side in ("x", "y", "width", "height")]
            part = shot[area[1] : area[1] + area[3], area[0] : area[0] + area[2]]
            seen = np.array([found(part, MARKS[colour]) for colour in places]) + area[:2]
            # a mouse stands on whole pixels of the page, so what it clicks is worked out from all four marks
            to_picture = [
                np.polyfit(seen[:, axis] / dpr, [at[axis] for at in places.values()], 1) for axis in (0, 1)
            ]
            shown = stage(editor)
            worst = worst_seen = 0.0
            for place in seen:
                mouse = np.round(place / dpr)
                editor.page.mouse.click(*mouse)
                values = editor.page.evaluate(VALUES)
                for axis, size in ((0, width), (1, height)):
                    value = values["focus_" + "xy"[axis]]
                    worst = max(worst, abs(value - shown.share(mouse)[axis]) * size)
                    off = abs(value - np.polyval(to_picture[axis], mouse[axis])) * size
                    worst_seen = max(worst_seen, off * shown.width / width * dpr)
            rows.append(
                f"{name:9} zoom {zoom:3} DPR {dpr}: {worst:.2f} px of the picture, {worst_seen:.2f} on screen"
            )
            assert worst <= 1.0, rows[-1]
            # Chromium draws on whole pixels of the screen, so that is as well as a screenshot can tell
            assert worst_seen <= 1.0, rows[-1]
    with capsys.disabled():
        print("\n" + "\n".join(f"{'nodes2 ' if nodes2 else 'classic'} {row}" for row in rows))
    assert editor.errors == []


@RENDERERS
def test_from_the_invitation_to_the_sharp_wall(open_editor, comfy, photo, nodes2):
    kind = "nodes2" if nodes2 else "classic"
    editor = open_editor(nodes2, viewport={"width": 1500, "height": 1000})
    page = editor.page
    editor.load(small_graph(), "pick")
    page.evaluate(SHOW, [1.0, 300, 60])
    expect(page.locator(".fine-defocus-focus .invite")).to_contain_text("Run the workflow once")
    editor.screenshot(f"focus-point-invites-{kind}")
    first = editor.run()
    assert first["status"]["status_str"] == "success", first["status"]["messages"]
    has_picture(editor)
    editor.screenshot(f"focus-point-{kind}")

    wall, engine = (60.5 / 741, 60.5 / 500), (330.5 / 741, 280.5 / 500)
    blurred = page.evaluate(GAUGE)
    stage(editor).click(*wall)
    page.wait_for_timeout(900)
    assert page.evaluate(GAUGE) != blurred, "the preview follows at once"
    values = page.evaluate(VALUES)
    assert (values["focus_x"], values["focus_y"]) == (
        pytest.approx(wall[0], abs=2e-3),
        pytest.approx(wall[1], abs=3e-3),
    )
    editor.screenshot(f"focus-point-clicked-{kind}")

    second = editor.run()
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    (asked,) = (n["inputs"] for n in prompt.values() if n["class_type"] == "FineDefocusFocusPoint")
    assert (asked["focus_x"], asked["focus_y"]) == (values["focus_x"], values["focus_y"])
    assert not set(asked) & {"focus_picker", "picker"}

    def change(entry, point):
        (image,) = next(o["images"] for o in entry["outputs"].values() if o.get("images"))
        shown = np.asarray(Image.open(io.BytesIO(comfy.view(image))).convert("RGB"), float)
        x, y = int(point[0] * shown.shape[1]), int(point[1] * shown.shape[0])
        part = shown[y - 15 : y + 15, x - 15 : x + 15].mean(-1)
        return np.abs(np.diff(part, axis=1)).mean()

    assert change(second, wall) > 1.3 * change(first, wall)
    assert change(second, engine) < 0.7 * change(first, engine)
    assert editor.errors == []


@RENDERERS
def test_the_point_outlives_undo_saving_and_loading(open_editor, output_of, nodes2):
    editor = open_editor(nodes2, viewport={"width": 1400, "height": 1000})
    page = editor.page
    node = only_the_node(editor, preview_blur=False)
    page.evaluate(SHOW, [1.0, 300, 60])
    picture, _ = marked(741, 500)
    output = output_of("landscape", picture)
    page.evaluate(HEAR, [node, output])
    has_picture(editor)
    at = lambda: tuple(page.evaluate(VALUES)[name] for name in ("focus_x", "focus_y"))  # noqa: E731

    stage(editor).click(0.25, 0.25)
    first = at()
    page.wait_for_timeout(300)
    stage(editor).click(0.75, 0.75)
    second = at()
    page.wait_for_timeout(300)
    assert first != second
    page.keyboard.press("Control+z")
    page.wait_for_timeout(800)
    assert at() == first
    page.keyboard.press("Control+y")
    page.wait_for_timeout(800)
    assert at() == second
    page.keyboard.press("Control+z")
    page.wait_for_timeout(800)

    # the node is a new object by now: the page must show its element and not the dead one's
    page.evaluate(HEAR, [node, output])
    has_picture(editor)
    assert page.locator(STAGE).count() == 1
    stage(editor).click(0.5, 0.9)
    page.wait_for_timeout(300)
    assert at() == (pytest.approx(0.5, abs=2e-3), pytest.approx(0.9, abs=3e-3))

    third = at()
    saved = page.evaluate("() => app.graph.serialize()")
    (stored,) = saved["nodes"]
    assert stored["widgets_values"][:2] == list(third)
    assert len(stored["widgets_values"]) == 5, "the picker is not among the values"
    assert len(json.dumps(stored)) < 4000, "nothing large enters the workflow"
    editor.load(saved, "again")
    assert at() == third
    assert editor.errors == []


@RENDERERS
def test_keys_second_point_link_and_aperture(open_editor, comfy, photo, nodes2):
    editor = open_editor(nodes2, viewport={"width": 1700, "height": 1000})
    page = editor.page
    editor.load(small_graph(), "keys")
    page.evaluate(SHOW, [0.9, 500, 60])
    editor.run()
    has_picture(editor)
    shown = stage(editor)
    shown.click(0.4, 0.5)
    page.wait_for_timeout(400)
    before = page.evaluate(VALUES)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.wait_for_timeout(400)
    after = page.evaluate(VALUES)
    assert after["focus_x"] - before["focus_x"] == pytest.approx(1 / 741, abs=1e-4)
    assert after["focus_y"] - before["focus_y"] == pytest.approx(10 / 500, abs=1e-4)

    page.keyboard.down("Shift")
    shown.click(0.85, 0.3)
    page.keyboard.up("Shift")
    page.wait_for_timeout(700)
    ranged = page.evaluate(VALUES)
    assert (ranged["focus_x"], ranged["range_x"]) == (after["focus_x"], pytest.approx(0.85, abs=2e-3))
    expect(page.locator(".fine-defocus-focus .summary")).to_contain_text("keeps both ends sharp")
    page.keyboard.press("z")
    page.wait_for_timeout(900)
    editor.screenshot(f"focus-point-range-{'nodes2' if nodes2 else 'classic'}")
    page.keyboard.press("x")
    page.wait_for_function(f"() => ({VALUES})().range_x === -1")

    page.keyboard.press("]")
    camera = VALUES.replace("FocusPoint", "Camera")
    page.wait_for_function(f"() => ({camera})().aperture === 'f/1.6'")
    page.keyboard.press("Delete")
    page.wait_for_timeout(200)
    assert page.evaluate(f"() => {{ {NODE}; return !!node }}"), "Delete on the picture spares the node"

    page.evaluate(
        f"""() => {{
            {NODE}
            const source = LiteGraph.createNode('PrimitiveFloat')
            app.graph.add(source)
            source.connect(0, node, node.inputs.findIndex(i => i.name === 'focus_x'))
        }}"""
    )
    page.wait_for_timeout(500)
    held = page.evaluate(VALUES)
    shown.click(0.2, 0.2)
    page.wait_for_timeout(400)
    assert page.evaluate(VALUES) == held
    expect(page.locator(".fine-defocus-focus .hint")).to_contain_text("focus_x is linked")
    assert editor.errors == []


def test_one_context_serves_twenty_and_goes_with_the_last(open_editor, output_of):
    editor = open_editor(True, viewport={"width": 1600, "height": 1000})
    page = editor.page
    node = only_the_node(editor, preview_f_number=1)
    workflow = page.evaluate("() => app.graph.serialize()")
    (one,) = workflow["nodes"]
    workflow["nodes"] = [
        one | {"id": node + i, "pos": [360 * (i % 7), 640 * (i // 7)], "order": i} for i in range(20)
    ]
    editor.load(workflow | {"last_node_id": node + 20}, "twenty")
    editor.fit()
    picture = np.random.default_rng(1).integers(0, 255, (60, 90, 3))
    output = output_of("tiny", picture, near=0.3, far=40.0)
    for i in range(20):
        page.evaluate(HEAR, [node + i, output])
    page.wait_for_function("() => !document.querySelector('.fine-defocus-focus.empty')", timeout=30_000)
    page.wait_for_timeout(1000)
    editor.screenshot("focus-point-twenty")
    state = f"async () => {{ const s = {SHARED}; return [s.users.size, !!s.renderer && !s.renderer.lost] }}"
    assert page.evaluate(state) == [20, True]
    live = page.evaluate(GAUGE)

    page.evaluate(
        f"""async () => {{
            const s = {SHARED}
            s.tool = s.renderer.gl.getExtension('WEBGL_lose_context')
            s.tool.loseContext()
        }}"""
    )
    page.wait_for_timeout(800)
    assert page.evaluate(state) == [20, False]
    assert page.evaluate(GAUGE) > 1.05 * live, "without a context the sharp picture is shown"
    page.evaluate(f"async () => ({SHARED}).tool.restoreContext()")
    page.wait_for_timeout(1500)
    assert page.evaluate(state) == [20, True]
    assert page.evaluate(GAUGE) == pytest.approx(live, rel=0.01)

    page.evaluate("() => [...app.graph._nodes].forEach(node => app.graph.remove(node))")
    page.wait_for_timeout(1500)
    assert page.evaluate(f"async () => {{ const s = {SHARED}; return [s.users.size, s.renderer] }}") == [
        0,
        None,
    ]
    assert editor.errors == []
