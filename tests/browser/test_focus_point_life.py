"""Focus Point when something is missing, under a finger, in full size, and when the renderer is changed."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from browser.conftest import SCREENSHOTS
from browser.picker import (
    EXAMPLE,
    GAUGE,
    HEAR,
    NODE,
    SHOW,
    STAGE,
    VALUES,
    only_the_node,
    small_graph,
    stage,
)
from browser.templates import RENDERERS
from PIL import Image
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WITHOUT_WEBGL2 = """(() => {
    for (const kind of [HTMLCanvasElement, OffscreenCanvas]) {
        const { getContext } = kind.prototype
        kind.prototype.getContext = function (name, ...more) {
            return name === 'webgl2' ? null : getContext.call(this, name, ...more)
        }
    }
})()"""
ROOT = ".fine-defocus-focus"
DIALOG = "dialog.fine-defocus-full"
#: Of the picture as it is shown: how far red stands over blue, left and right half.
WARMTH = """() => {
    const canvas = document.querySelector('.fine-defocus-focus canvas.picture')
    const { width, height } = canvas
    const { data } = canvas.getContext('2d').getImageData(0, 0, width, height)
    const sums = [0, 0]
    for (let i = 0; i < data.length; i += 4) sums[+((i / 4) % width > width / 2)] += data[i] - data[i + 2]
    return sums.map((sum) => sum / (width * height / 2))
}"""


# The picture stands still for a while: the page is laid out.
AT_REST = """() => new Promise((done, fail) => {
    const end = performance.now() + 120_000
    let last = ''
    let same = 0
    const look = () => {
        const shown = document.querySelector('.fine-defocus-focus:not(.empty) canvas.picture')
        const { x, y, width, height } = shown?.getBoundingClientRect() ?? { width: 0 }
        const now = width > 50 ? String([x, y, width, height]) : ''
        same = now && now === last ? same + 1 : 0
        last = now
        if (same > 20) done()
        else if (performance.now() > end) fail(new Error(`no picture at rest: ${now || 'none'}`))
        else requestAnimationFrame(look)
    }
    look()
})"""
#: A machine may be many times slower than the one this was written on.
PATIENCE_MS = 120_000


def soon(page, condition: str, argument=None) -> None:
    page.wait_for_function(condition, arg=argument, timeout=PATIENCE_MS)


def at_rest(page) -> None:
    page.evaluate(AT_REST)


def press_run(page, comfy) -> dict:
    """Click the editor's Run; the history entry once it has ended well."""
    posted = page.expect_response(
        lambda answer: answer.url.endswith("/prompt") and answer.request.method == "POST", timeout=PATIENCE_MS
    )
    with posted as answer:
        page.get_by_role("button", name="Run", exact=True).click()
    entry = comfy.wait(answer.value.json()["prompt_id"], 600)
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
    return entry


def values(page) -> dict:
    return page.evaluate(VALUES)


def shown_at(editor, x: float, y: float) -> None:
    """Wait until the node holds this point, to the pixel of a 741 px picture."""
    soon(
        editor.page,
        f"""([x, y]) => {{
            {NODE}
            const [a, b] = ['focus_x', 'focus_y'].map(name => node.widgets.find(w => w.name === name).value)
            return Math.abs(a - x) < 1 / 300 && Math.abs(b - y) < 1 / 200
        }}""",
        [x, y],
    )


def noise(width=741, height=500) -> np.ndarray:
    grey = np.random.default_rng(2).integers(40, 215, (height // 4 + 1, width // 4 + 1))
    return np.kron(grey, np.ones((4, 4)))[:height, :width, None].repeat(3, -1)


def opened(open_editor, nodes2, output, *, before="", width=1400, **options):
    """The node alone with this picture in it; `before` runs before the page's own scripts."""
    editor = open_editor(nodes2, viewport={"width": width, "height": 1000}, **options)
    editor.page.set_default_timeout(PATIENCE_MS)
    if before:
        editor.page.add_init_script(before)
        editor.reload()
    node = only_the_node(editor)
    editor.page.evaluate(SHOW, [1.0, 300, 60])
    editor.page.evaluate(HEAR, [node, output])
    at_rest(editor.page)
    return editor, node


@RENDERERS
def test_without_webgl2_and_with_files_that_are_gone(open_editor, output_of, nodes2):
    output = output_of("noise", noise())
    editor, node = opened(open_editor, nodes2, output, before=WITHOUT_WEBGL2)
    page = editor.page
    expect(page.locator(f"{ROOT} .hint")).to_contain_text("No WebGL2 in this browser")
    expect(page.get_by_role("button", name="Blur")).to_be_disabled()
    stage(editor).click(0.6, 0.4)
    shown_at(editor, 0.6, 0.4)
    plain = page.evaluate(WARMTH)
    assert plain == pytest.approx([0, 0], abs=1)
    page.get_by_role("button", name="Zone").click()
    soon(page, f"() => {{ const [left, right] = ({WARMTH})(); return left < -5 && right > 5 }}")
    editor.screenshot(f"focus-point-without-webgl2-{'nodes2' if nodes2 else 'classic'}")

    gone = {**output, "focus_preview": [{"filename": "no-such.png", "subfolder": "", "type": "temp"}]}
    page.evaluate(HEAR, [node, gone])
    page.wait_for_selector(f"{ROOT}.empty")
    invite = page.locator(f"{ROOT} .invite")
    expect(invite).to_contain_text("gone from the server")
    expect(invite).to_contain_text("Run again")
    held = values(page)
    box = page.locator(STAGE).bounding_box()
    page.mouse.click(box["x"] + 50, box["y"] + 50)
    page.keyboard.press("ArrowLeft")
    assert values(page) == held, "there is nothing to click on"
    editor.screenshot(f"focus-point-gone-{'nodes2' if nodes2 else 'classic'}")

    # all of it sky, of another shape, and the point is where it was in shares
    page.evaluate(HEAR, [node, output_of("sky", noise(300, 400), near=None, far=None, sky=True)])
    at_rest(page)
    shown_at(editor, 0.6, 0.4)
    soon(page, "() => document.querySelector('.fine-defocus-focus .summary').innerText.startsWith('sky')")
    assert editor.errors == []


@RENDERERS
def test_a_finger_taps_and_drags(open_editor, output_of, nodes2):
    output = output_of("noise", noise())
    editor, _ = opened(open_editor, nodes2, output, has_touch=True)
    page, shown = editor.page, stage(editor)
    page.touchscreen.tap(*shown.at(0.2, 0.3))
    shown_at(editor, 0.2, 0.3)
    where = page.evaluate("() => [...app.canvas.ds.offset]")

    touch = page.context.new_cdp_session(page)
    for kind, place in (
        ("touchStart", (0.2, 0.3)), ("touchMove", (0.5, 0.5)), ("touchMove", (0.8, 0.7)), ("touchEnd", None)
    ):  # fmt: skip
        points = [] if place is None else [dict(zip("xy", shown.at(*place), strict=True))]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    shown_at(editor, 0.8, 0.7)
    assert page.evaluate("() => [...app.canvas.ds.offset]") == where, "the canvas stays under the finger"
    soon(page, "() => document.querySelector('.fine-defocus-focus .loupe').hidden")
    assert editor.errors == []


@RENDERERS
def test_keys_faster_than_the_picture_is_drawn(open_editor, output_of, nodes2):
    """Each key goes on from the one before it, also where no frame lies between them."""
    editor, _ = opened(open_editor, nodes2, output_of("noise", noise()))
    page = editor.page
    stage(editor).click(0.3, 0.6)
    shown_at(editor, 0.3, 0.6)
    before = values(page)
    properties = f"() => {{ {NODE}; return node.properties.preview_f_number }}"
    page.evaluate(
        """([stage, keys]) => {
            const element = document.querySelector(stage)
            const pressed = (key) => new KeyboardEvent('keydown', { key, bubbles: true })
            for (const key of keys) element.dispatchEvent(pressed(key))
        }""",
        [STAGE, ["ArrowUp", "ArrowUp", "ArrowUp", "ArrowLeft", "ArrowLeft", "]", "]", "]"]],
    )
    after = values(page)
    # the widgets keep four digits
    assert after["focus_y"] == pytest.approx(before["focus_y"] - 3 / 500, abs=2e-4)
    assert after["focus_x"] == pytest.approx(before["focus_x"] - 2 / 741, abs=2e-4)
    assert page.evaluate(properties) == 4.0  # three thirds from f/2.8


@RENDERERS
def test_full_size_subject_and_the_other_buttons_of_the_mouse(open_editor, output_of, nodes2):
    editor, _ = opened(open_editor, nodes2, output_of("noise", noise()))
    page = editor.page
    stage(editor).click(0.3, 0.3)
    page.keyboard.press("f")
    full = page.locator(f"{DIALOG} canvas.picture")
    full.wait_for()
    soon(page, f"() => document.querySelector('{DIALOG} canvas.picture').getBoundingClientRect().width > 741")
    box = full.bounding_box()
    for x, y in ((0.05, 0.05), (0.5, 0.31), (0.97, 0.9)):
        # a mouse stands on whole pixels of the page
        at = round(box["x"] + x * box["width"]), round(box["y"] + y * box["height"])
        page.mouse.click(*at)
        shown_at(editor, x, y)
        held = values(page)
        assert held["focus_x"] * 741 == pytest.approx((at[0] - box["x"]) / box["width"] * 741, abs=1)
        assert held["focus_y"] * 500 == pytest.approx((at[1] - box["y"]) / box["height"] * 500, abs=1)
    page.keyboard.press("ArrowUp")
    assert values(page)["focus_y"] == pytest.approx(held["focus_y"] - 1 / 500, abs=1e-4)
    at_rest(page)
    editor.screenshot(f"focus-point-full-{'nodes2' if nodes2 else 'classic'}")
    page.keyboard.press("Escape")
    page.wait_for_selector(DIALOG, state="detached")
    assert page.evaluate("() => document.activeElement.className") == "stage"
    page.keyboard.press("r")
    shown_at(editor, 0.5, 0.5)

    # sharp is the picture that was sent, but for a step of 8 bits here and there
    sharp = float(np.abs(np.diff(noise()[..., 1].ravel())).sum())
    is_sharp, is_blurred = f"(all) => ({GAUGE})() > 0.97 * all", f"(all) => ({GAUGE})() < 0.9 * all"
    page.get_by_role("slider", name="Aperture").fill("0")
    soon(page, is_blurred, sharp)
    assert page.evaluate(f"() => {{ {NODE}; return node.properties.preview_f_number }}") == 1.0
    stage(editor).click(0.5, 0.5)
    page.keyboard.press("]")
    soon(page, f"() => {{ {NODE}; return node.properties.preview_f_number > 1 }}")
    page.keyboard.press("[")
    soon(page, f"() => {{ {NODE}; return node.properties.preview_f_number === 1 }}")
    page.keyboard.down("c")
    soon(page, is_sharp, sharp)
    page.keyboard.up("c")
    soon(page, is_blurred, sharp)
    page.keyboard.press("b")
    soon(page, is_sharp, sharp)
    page.keyboard.press("b")
    soon(page, is_blurred, sharp)

    page.mouse.dblclick(*stage(editor).at(0.7, 0.6))
    shown_at(editor, 0.7, 0.6)
    assert values(page)["sample"] == "subject"
    expect(page.locator(f"{ROOT} .hint")).to_contain_text("Run to measure the whole subject")

    # the wheel and the right button are the editor's
    scale = page.evaluate("() => app.canvas.ds.scale")
    page.mouse.wheel(0, -240)
    soon(page, "(was) => app.canvas.ds.scale > was", scale)
    at_rest(page)
    before = values(page)
    stage(editor).click(0.2, 0.2, button="right")
    menu = page.locator(".litecontextmenu, .p-contextmenu, [role=menu]")
    menu.first.wait_for()
    editor.screenshot(f"focus-point-menu-{'nodes2' if nodes2 else 'classic'}")
    assert values(page) == before
    if nodes2:
        menu.get_by_text("Node Info").click()
        moving = page.locator("img[src$='docs/focus-point.webp']")
        moving.wait_for()
        soon(page, "() => document.querySelector('img[src$=\"docs/focus-point.webp\"]').naturalWidth > 0")
        editor.screenshot("focus-point-help")
    assert editor.errors == []


def test_the_renderer_is_changed_under_it_and_a_subgraph_made_of_it(open_editor, comfy, photo):
    editor = open_editor(False, viewport={"width": 1500, "height": 1000})
    page = editor.page
    page.set_default_timeout(PATIENCE_MS)
    editor.load(small_graph(), "change")
    page.evaluate(SHOW, [1.0, 300, 60])
    press_run(page, comfy)
    at_rest(page)
    stage(editor).click(0.25, 0.75)
    shown_at(editor, 0.25, 0.75)
    for nodes2, place in ((True, (0.7, 0.2)), (False, (0.4, 0.6)), (True, (0.3, 0.3))):
        held = values(page)
        editor.setting("Comfy.VueNodes.Enabled", nodes2)
        soon(page, f"() => !!LiteGraph.vueNodesMode === {str(nodes2).lower()}")
        page.evaluate(SHOW, [1.0, 300, 60])
        soon(page, f"() => document.querySelectorAll('{STAGE}').length === 1")
        at_rest(page)
        assert values(page) == held
        stage(editor).click(*place)
        shown_at(editor, *place)
        editor.screenshot(f"focus-point-changed-to-{'nodes2' if nodes2 else 'classic'}")

    camera = "const camera = app.graph._nodes.find(n => n.type === 'FineDefocusCamera')"
    slider = page.get_by_role("slider", name="Aperture")
    slider.fill("12")
    soon(page, f"() => {{ {camera}; return camera.widgets.find(w => w.name === 'f_number').value === 4 }}")
    expect(page.locator(f"{ROOT} .aperture span")).to_have_text("Camera")
    page.evaluate(f"""() => {{
        {camera}
        const source = LiteGraph.createNode('PrimitiveFloat')
        app.graph.add(source)
        source.connect(0, camera, camera.inputs.findIndex(i => i.name === 'f_number'))
    }}""")
    soon(page, "() => document.querySelector('.fine-defocus-focus .aperture input').disabled")
    expect(page.locator(f"{ROOT} .aperture b")).to_have_text("f/1.4")
    expect(page.locator(f"{ROOT} .aperture span")).to_have_text("of the last run")

    # made and opened before the editor has drawn either
    page.evaluate(f"""() => {{
        {NODE}
        const {{ subgraph }} = app.graph.convertToSubgraph(new Set([node]))
        app.canvas.setGraph(subgraph)
    }}""")
    within = {
        name: text.replace("app.graph.", "app.canvas.graph.")
        for name, text in (("show", SHOW), ("values", VALUES))
    }
    page.evaluate(within["show"], [1.0, 300, 60])
    at_rest(page)
    stage(editor).click(0.8, 0.4)
    held = page.evaluate(within["values"])
    assert (held["focus_x"], held["focus_y"]) == (
        pytest.approx(0.8, abs=1 / 300),
        pytest.approx(0.4, abs=1 / 200),
    )
    assert editor.errors == []


def test_the_example_by_its_run_button(open_editor, comfy, photo):
    """Dr.Bokeh Lens and all. What is seen on the way becomes the animation of the node's help page."""
    editor = open_editor(True, viewport={"width": 1500, "height": 1000})
    page = editor.page
    page.set_default_timeout(PATIENCE_MS)
    editor.load(json.loads(EXAMPLE.read_text(encoding="utf-8")), "click to focus")
    page.evaluate(SHOW, [1.0, 300, 60])
    frames = []

    def frame(milliseconds: int) -> None:
        page.wait_for_timeout(250)  # a finer picture is nicer, nothing depends on it
        box = page.locator(".lg-node", has=page.locator(ROOT)).bounding_box()
        shot = Image.open(io.BytesIO(page.screenshot(clip=box, animations="disabled"))).convert("RGB")
        frames.append((shot, milliseconds))

    def run() -> np.ndarray:
        entry = press_run(page, comfy)
        saved = [image for o in entry["outputs"].values() for image in o.get("images", ())]
        (image,) = (image for image in saved if image["type"] == "output")
        return np.asarray(Image.open(io.BytesIO(comfy.view(image))).convert("RGB"), float)

    pictures = [run()]  # as the template has it: on the engine
    at_rest(page)
    for x, y in ((0.45, 0.56), (0.08, 0.12), (0.62, 0.85)):
        place = stage(editor).at(x, y)
        page.mouse.move(*place, steps=4)
        frame(500)
        page.mouse.click(*place)
        shown_at(editor, x, y)
        frame(300)
        page.mouse.move(place[0], 40)
        frame(1400)
        if y == 0.12:
            pictures.append(run())
    page.keyboard.press("z")
    frame(1600)
    page.keyboard.press("z")
    for _ in range(6):
        page.keyboard.press("]")
        frame(150)
    frame(1500)
    first, *more = [shot.resize((shot.width * 9 // 10, shot.height * 9 // 10)) for shot, _ in frames]
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    first.save(
        SCREENSHOTS / "focus-point.webp", save_all=True, append_images=more, loop=0, quality=60,
        duration=[milliseconds for _, milliseconds in frames],
    )  # fmt: skip

    def detail(picture: np.ndarray, x: float, y: float) -> float:
        row, column = int(y * picture.shape[0]), int(x * picture.shape[1])
        part = picture[row - 20 : row + 20, column - 20 : column + 20].mean(-1)
        return np.abs(np.diff(part, axis=1)).mean()

    engine, wall = pictures
    assert detail(engine, 0.45, 0.56) > 1.5 * detail(wall, 0.45, 0.56)
    assert detail(wall, 0.12, 0.15) > 1.3 * detail(engine, 0.12, 0.15)
    for name, picture in zip(("engine", "wall"), pictures, strict=True):
        Image.fromarray(picture.astype(np.uint8)).save(SCREENSHOTS / f"click-to-focus-{name}.png")
    assert editor.errors == []
