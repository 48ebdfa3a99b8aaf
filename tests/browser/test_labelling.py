"""The labelling page in a real Chromium: label by key and button, undo, loupe, reload, a broken file."""

from __future__ import annotations

from urllib.parse import urlsplit

import numpy as np
import pytest
from browser.served import served, shot
from PIL import Image

from training.people.labelling.store import Labels

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ASKED = "(n) => document.querySelector('.asked')?.dataset.number === n && document.body.dataset.ready === '1'"


@pytest.fixture
def photos(tmp_path):
    """Four photos, one of them no picture inside."""
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for k in range(3):
        pixels = noise.integers(0, 256, (900, 1400, 3)).astype(np.uint8)
        pixels[:, : 300 + 300 * k] = (40, 90, 60 + 60 * k)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_label_photos(chromium, photos, tmp_path):
    path = tmp_path / "labels.sqlite"
    with served(["label", "serve", "--photos", photos, "--labels", path], tmp_path / "log") as address:
        labels = Labels(path, photos)
        numbers = {labels.photo(k).name: str(k) for k in range(1, 5)}
        context = chromium.new_context(viewport={"width": 1500, "height": 900})
        hosts, errors = set(), []
        context.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#begin")
        page.get_by_label("Your name").fill("?")
        page.click("#begin")
        page.wait_for_selector(".notice")
        assert "2 to 32" in page.inner_text(".notice")
        page.get_by_label("Your name").fill("anna")
        page.click("#begin")
        page.wait_for_function(ASKED, arg="1")

        # the loupe shows the file's own pixels where one clicks
        first = labels.photo(1) if labels.photo(1).name != "broken.png" else labels.photo(2)
        if numbers["broken.png"] == "1":
            page.keyboard.press("0")
            page.wait_for_function(ASKED, arg="2")
        box = page.locator(".photo").bounding_box()
        with page.expect_response(lambda answer: "/loupe/" in answer.url) as answer:
            page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + 0.5 * box["height"])
        (tmp_path / "loupe.jpg").write_bytes(answer.value.body())
        seen = np.asarray(Image.open(tmp_path / "loupe.jpg"), float)
        x, y = map(float, answer.value.url.split("/")[-2:])
        # a pixel of the page is about one and a half of the file
        assert (x, y) == pytest.approx((0.9, 0.5), abs=2 / 900)
        left, top = 1400 - 440, round(y * 900 - 220)
        known = np.asarray(Image.open(first), float)[top : top + 440, left : left + 440]
        # a JPEG of quality 95 of noise is off by a few of 255
        assert np.abs(seen - known).mean() < 8

        page.wait_for_timeout(300)
        page.screenshot(path=shot("labelling"))
        while labels.undo("ANNA"):
            pass
        page.reload()
        page.wait_for_function(ASKED, arg="1")
        page.keyboard.press("2")
        page.wait_for_function(ASKED, arg="2")
        page.click("#label-undesirable")
        page.wait_for_function(ASKED, arg="3")
        assert [said["ANNA"] for said in labels.all().values()] == ["desirable", "undesirable"]
        page.reload()
        page.wait_for_function(ASKED, arg="3")
        page.keyboard.press("z")
        page.wait_for_function(ASKED, arg="2")
        page.keyboard.press("1")
        page.wait_for_function(ASKED, arg="3")
        page.keyboard.press("0")
        page.wait_for_function(ASKED, arg="4")
        page.keyboard.press("3")
        page.wait_for_function("() => document.querySelector('h1')?.innerText.startsWith('No photo is left')")
        page.screenshot(path=shot("labelling_end"))
        given = [said["ANNA"] for said in labels.all().values()]
        assert given == ["desirable", "none", "skipped", "undesirable"]
        page.click("#undo")
        page.wait_for_function(ASKED, arg="4")
        assert errors == []
        assert hosts - {""} == {urlsplit(address).netloc}
        context.close()
