"""The generator's template in the real editor: it opens, runs by its button, and its previews move.

With the toy SDXL of tests/host/toy_sdxl.py, so what the pictures show means nothing.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os

import pytest
from browser.templates import EXAMPLES, RENDERERS, check_it_opens_whole, overlapping
from host.toys import small, toy_host
from PIL import Image

from tools.provision import REPO

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif("COMFYUI_URL" in os.environ, reason="needs a models folder and nodes of its own"),
]

FROM_TEXT = [path for path in EXAMPLES if path.stem.startswith("text_to_")]
#: Keeps every preview that the page is sent, as its bytes, and every step of the sampler's progress.
LISTEN = """() => {
    const [previews, steps] = [(window.previews = []), (window.steps = [])]
    const keep = async (blob) => {
        const bytes = new Uint8Array(await blob.arrayBuffer())
        previews.push(btoa(String.fromCharCode(...bytes)))
    }
    app.api.addEventListener('b_preview', (event) => keep(event.detail))
    app.api.addEventListener('progress', ({ detail: { node, value, max } }) => steps.push([node, value, max]))
}"""


@pytest.fixture(scope="module")
def comfy(tmp_path_factory):
    with toy_host(tmp_path_factory.mktemp("toys")) as server:
        yield server


@RENDERERS
@pytest.mark.parametrize("example", FROM_TEXT, ids=lambda path: path.stem)
def test_an_example_opens_whole(open_editor, comfy, example, nodes2):
    check_it_opens_whole(open_editor(nodes2), comfy, example, nodes2)


@RENDERERS
def test_previews_move_while_the_sampler_works(open_editor, comfy, nodes2):
    kind = "nodes2" if nodes2 else "classic"
    editor = open_editor(nodes2)
    page = editor.page
    workflow = small(
        json.loads((REPO / "example_workflows" / "text_to_bokeh.json").read_text(encoding="utf-8"))
    )
    (sampler,) = (n for n in workflow["nodes"] if n["type"] == "FineDefocusAIFSampler")
    sampler["widgets_values"][0] += nodes2  # another seed, or all of it is remembered from the other renderer
    editor.load(workflow, "text to bokeh")
    editor.fit()
    page.evaluate(LISTEN)
    entry = editor.run()
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
    page.wait_for_function("() => window.previews.length >= 4", timeout=30_000)
    previews = [page.evaluate(f"() => window.previews[{i}]") for i in range(4)]
    pictures = [Image.open(io.BytesIO(base64.b64decode(text))) for text in previews]
    assert len({hashlib.sha256(picture.tobytes()).digest() for picture in pictures}) == 4
    assert all(min(picture.size) >= 16 for picture in pictures)
    steps = [step for step in page.evaluate("() => window.steps") if str(step[0]) == str(sampler["id"])]
    assert [step[1:] for step in steps] == [[i, 4] for i in (1, 2, 3, 4)]
    page.wait_for_timeout(1500)
    editor.fit()
    editor.screenshot(f"text-to-bokeh-{kind}")
    said = comfy.get(f"/history/{entry['prompt'][1]}")[entry["prompt"][1]]["outputs"][str(sampler["id"])]
    assert overlapping(editor.state()["nodes"]) == [], "pictures make nodes grow"
    assert said["text"] == ["4 steps at 999, 749, 499, 249"]
    assert editor.errors == []
