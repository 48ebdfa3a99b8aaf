"""ComfyUI's editor in a real Chromium, driven by Playwright; screenshots go to output/screenshots."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser.picker import sent
from playwright.sync_api import expect

from tools import provision

# a starved machine draws seconds late
expect.set_options(timeout=60_000)

SCREENSHOTS = Path(__file__).resolve().parents[2] / "output" / "screenshots"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
READY = """() => window.app?.graph && app.extensionManager
    && Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 0"""
# Everything about the loaded graph that a test asks for, as plain data.
STATE = """async () => {
    const graph = app.graph
    const links = [...(graph.links.values?.() ?? Object.values(graph.links))]
    return {
        nodes: graph._nodes.map(n => ({
            id: String(n.id), type: n.type, title: n.title, errors: !!n.has_errors,
            known: !!LiteGraph.registered_node_types[n.type],
            left: n.pos[0], right: n.pos[0] + n.size[0],
            top: n.pos[1] - LiteGraph.NODE_TITLE_HEIGHT, bottom: n.pos[1] + n.size[1],
        })),
        links: links.map(l => [+l.id, +l.origin_id, l.origin_slot, +l.target_id, l.target_slot]),
        prompt: (await app.graphToPrompt()).output,
        vue: !!LiteGraph.vueNodesMode,
        drawn: document.querySelectorAll('.lg-node[data-node-id]').length,
    }
}"""


def pytest_collection_modifyitems(items):
    """On a starved machine a browser may drop a frame or a key: two more tries, and the summary says so."""
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.flaky(reruns=2))


class Editor:
    """One browser tab with ComfyUI's editor in it; `page` is Playwright's."""

    def __init__(self, page, comfy, nodes2: bool):
        self.page, self.comfy, self.nodes2, self.errors = page, comfy, nodes2, []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.reload()

    def reload(self) -> None:
        """The editor from the beginning."""
        page = self.page
        page.goto(self.comfy.url)
        page.wait_for_function(READY, timeout=60_000)
        self.setting("Comfy.VueNodes.Enabled", self.nodes2)
        page.wait_for_function(
            f"() => !!LiteGraph.vueNodesMode === {str(self.nodes2).lower()}", timeout=10_000
        )
        page.keyboard.press("Escape")

    def setting(self, name: str, value) -> None:
        self.page.evaluate("([k, v]) => app.extensionManager.setting.set(k, v)", [name, value])

    def load(self, workflow: dict, name: str = "test") -> None:
        self.page.evaluate("([w, n]) => app.loadGraphData(w, true, true, n)", [workflow, name])
        self.page.wait_for_timeout(500)

    def state(self) -> dict:
        return self.page.evaluate(STATE)

    def fit(self) -> None:
        self.page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.page.wait_for_timeout(800)

    def run(self, timeout: float = 300) -> dict:
        """Queue the graph as the Run button does; the history entry."""
        before = set(self.comfy.get("/history"))
        self.page.evaluate("() => app.queuePrompt(0, 1)")
        for _ in range(200):
            queue = self.comfy.get("/queue")
            new = [job[1] for job in queue["queue_running"] + queue["queue_pending"]]
            new += [i for i in self.comfy.get("/history") if i not in before]
            if new:
                return self.comfy.wait(new[0], timeout)
            self.page.wait_for_timeout(100)
        raise AssertionError("the browser queued nothing")

    def screenshot(self, name: str) -> Path:
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path)
        return path


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    path = provision.find_chromium()
    if not path:
        pytest.skip("no Chromium on this machine: install it, or set FINE_DEFOCUS_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def open_editor(chromium, comfy):
    """Opens the editor: `open_editor(nodes2=True)` draws nodes with Vue, else on the canvas."""
    contexts = []

    def open_one(nodes2: bool, **options) -> Editor:
        comfy.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": nodes2})
        context = chromium.new_context(**{"viewport": {"width": 2560, "height": 1440}, **options})
        contexts.append(context)
        return Editor(context.new_page(), comfy, nodes2)

    yield open_one
    for context in contexts:
        context.close()


@pytest.fixture
def output_of(comfy, tmp_path):
    """What Focus Point would send for a picture: `picker.sent`."""
    return lambda *picture, **info: sent(comfy, tmp_path, *picture, **info)
