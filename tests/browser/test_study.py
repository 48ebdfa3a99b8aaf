"""The page of the human study in a real Chromium: take part, go on after a reload, no vote twice, the end."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser.served import served, shot
from PIL import Image, ImageDraw

from training.people.study.manifest import read_manifest
from training.people.study.store import Store

PROMPT = "a <b>cat</b> on a ${1 + 1} wall & a lamp"
# A short film of a moving disc, made by the browser itself: nothing on this machine writes WebM.
FILM = """async (colour) => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 320, height: 240 })
    const pen = canvas.getContext('2d'), parts = []
    const recorder = new MediaRecorder(canvas.captureStream(25), { mimeType: 'video/webm;codecs=vp8' })
    recorder.ondataavailable = (event) => parts.push(event.data)
    recorder.start()
    for (let i = 0; i < 25; i++) {
        pen.fillStyle = '#333'; pen.fillRect(0, 0, 320, 240)
        pen.fillStyle = colour; pen.beginPath(); pen.arc(40 + 10 * i, 120, 30, 0, 7); pen.fill()
        await new Promise((done) => setTimeout(done, 40))
    }
    await new Promise((done) => { recorder.onstop = done; recorder.stop() })
    const bytes = new Uint8Array(await new Blob(parts).arrayBuffer())
    return btoa(String.fromCharCode(...bytes))
}"""
ASKED = "(n) => document.querySelector('.pair')?.dataset.number === n && document.body.dataset.ready === '1'"

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def manifest(chromium, tmp_path) -> Path:
    """Four questions: a prompt with films, and one with moving pictures, each against two baselines."""
    page = chromium.new_page()
    media: dict[str, dict[str, str]] = {"film": {}, "moving": {}}
    for method, colour in (("ours", "#5ad"), ("one", "#da5"), ("two", "#a5d")):
        (tmp_path / f"{method}.webm").write_bytes(base64.b64decode(page.evaluate(FILM, colour)))
        frames = []
        for k in range(8):
            frames.append(Image.new("RGB", (320, 240), "#333"))
            ImageDraw.Draw(frames[-1]).ellipse((30 * k, 90, 30 * k + 60, 150), fill=colour)
        frames[0].save(
            tmp_path / f"{method}.webp", save_all=True, append_images=frames[1:], duration=80, loop=0
        )
        media["film"][method], media["moving"][method] = f"{method}.webm", f"{method}.webp"
    page.close()
    path = tmp_path / "manifest.json"
    prompts = [{"id": name, "prompt": PROMPT, "media": files} for name, files in media.items()]
    methods = {"ours": "Ours", "one": "Baseline one", "two": "Baseline two"}
    path.write_text(json.dumps({"ours": "ours", "methods": methods, "prompts": prompts}))
    return path


@pytest.fixture
def page_of(manifest, tmp_path):
    """The page's address and its votes."""
    votes = tmp_path / "votes.sqlite"
    with served(["study", "serve", "--manifest", manifest, "--votes", votes], tmp_path / "log") as address:
        yield address, votes


def test_take_part(chromium, page_of, manifest):
    address, votes = page_of
    store = Store(votes, read_manifest(manifest))
    context = chromium.new_context(viewport={"width": 1600, "height": 1000})
    hosts, errors = set(), []
    context.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#begin")
    page.screenshot(path=shot("study_welcome"))
    page.get_by_label("Participant code").fill("a!")
    page.click("#begin")
    page.wait_for_selector(".notice")
    assert "3 to 32" in page.inner_text(".notice")
    assert store.participants() == (0, 0)
    page.get_by_label("Participant code").fill("anna-07")
    page.click("#begin")
    page.wait_for_function(ASKED, arg="1")
    assert page.inner_text(".prompt") == f"“{PROMPT}”"
    assert "ours" not in page.inner_html(".sides")
    assert "one" not in page.inner_html(".sides").lower().replace("none", "")
    page.screenshot(path=shot("study_question"))

    _watch(page)
    page.keyboard.press("1")
    page.wait_for_function(ASKED, arg="2")
    assert [(vote.participant, vote.side) for vote in store.votes()] == [("ANNA-07", "left")]
    assert 0 < store.votes()[0].seconds < 30

    page.reload()
    page.wait_for_function(ASKED, arg="2")
    stale = context.new_page()
    stale.goto(page.url)
    stale.wait_for_function(ASKED, arg="2")
    page.click("#vote-right")
    page.wait_for_function(ASKED, arg="3")
    stale.click("#vote-left")
    stale.wait_for_selector(".notice")
    assert "your vote already" in stale.inner_text(".notice")
    stale.screenshot(path=shot("study_duplicate"))
    assert [vote.side for vote in store.votes()] == ["left", "right"]
    stale.close()

    _watch(page)
    page.click("#vote-right")
    page.wait_for_function(ASKED, arg="4")
    page.keyboard.press("2")
    page.wait_for_function("() => document.querySelector('h1')?.innerText.startsWith('Thank you')")
    page.screenshot(path=shot("study_end"))
    page.keyboard.press("2")
    page.reload()
    page.wait_for_function("() => document.querySelector('h1')?.innerText.startsWith('Thank you')")
    assert [vote.side for vote in store.votes()] == ["left", "right", "right", "right"]
    assert {(vote.prompt, vote.baseline) for vote in store.votes()} == set(store.manifest.pairs)
    assert store.participants() == (1, 1)
    assert errors == []
    assert hosts - {""} == {urlsplit(address).netloc}
    context.close()


def _watch(page) -> None:
    """Both films of a question run, and stay within a tenth of a second, over the seam of their loop too."""
    if page.locator(".pair video").count() == 0:
        return
    times = "() => [...document.querySelectorAll('.pair video')].map(video => video.currentTime)"
    seen = []
    for _ in range(25):
        seen.append(page.evaluate(times))
        page.wait_for_timeout(60)
    assert max(left for left, _ in seen) - min(left for left, _ in seen) > 0.3
    apart = sorted(abs(left - right) for left, right in seen)
    # half of the samples: a correction needs a seek, which shows as one larger difference
    assert apart[len(apart) // 2] < 0.1
