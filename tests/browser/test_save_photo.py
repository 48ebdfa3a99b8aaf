"""A saved photo dropped into ComfyUI's editor brings its graph back, where the format can hold one."""

from __future__ import annotations

import base64

import pytest
from PIL import Image

pytestmark = [pytest.mark.host, pytest.mark.browser]

KINDS = {"PNG": "image/png", "WebP": "image/webp", "JPEG": "image/jpeg"}
BUILD = """(file) => {
    app.graph.clear()
    const add = type => { const node = LiteGraph.createNode(type); app.graph.add(node); return node }
    const photo = add('FineDefocusCameraFromPhoto')
    photo.widgets.find(w => w.name === 'file').value = file
    photo.widgets.find(w => w.name === 'focal_mm').value = 33
    for (const [i, kind] of ['PNG', 'WebP', 'JPEG'].entries()) {
        const save = add('FineDefocusSavePhoto')
        save.pos = [600, 300 * i]
        save.title = `größer ${kind}`
        save.widgets.find(w => w.name === 'format').value = kind
        save.widgets.find(w => w.name === 'filename_prefix').value = 'dropped'
        photo.connect(0, save, 0)
        photo.connect(2, save, save.inputs.findIndex(x => x.name === 'camera'))
    }
}"""
# the way of a file from the drop to the graph
DROP = """async ([text, name, type]) => {
    app.graph.clear()
    const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0))
    await app.handleFile(new File([bytes], name, { type }), 'file_drop')
}"""
GRAPH = """async () => ({
    sent: (await app.graphToPrompt()).output,
    titles: app.graph._nodes.filter(n => n.type === 'FineDefocusSavePhoto').map(n => n.title).sort(),
    buttons: app.graph._nodes.flatMap(n => n.widgets ?? []).filter(w => w.name === 'upload').length,
})"""


def test_a_dropped_file_restores_the_graph(open_editor, comfy, tmp_path):
    Image.new("RGB", (48, 32), (200, 60, 20)).save(tmp_path / "a.png")
    file = comfy.upload(tmp_path / "a.png", f"{tmp_path.name}.png")
    editor = open_editor(nodes2=True)
    editor.page.evaluate(BUILD, file)
    before = editor.page.evaluate(GRAPH)
    assert before["buttons"] == 1
    assert before["titles"] == ["größer JPEG", "größer PNG", "größer WebP"]
    entry = editor.run()
    assert entry["status"]["status_str"] == "success"
    editor.fit()
    editor.screenshot("save_photo")
    saved = {i["filename"].rsplit(".")[-1]: i for o in entry["outputs"].values() for i in o.get("images", [])}
    for kind, suffix in (("PNG", "png"), ("WebP", "webp"), ("JPEG", "jpg")):
        content = base64.b64encode(comfy.view(saved[suffix])).decode()
        editor.page.evaluate(DROP, [content, f"a.{suffix}", KINDS[kind]])
        editor.page.wait_for_timeout(500)
        after = editor.page.evaluate(GRAPH)
        if kind == "JPEG":
            assert after["titles"] == []
        else:
            assert after == before, kind
    assert editor.errors == []
