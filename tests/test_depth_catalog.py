"""Which depth networks there are, and fetching published ones from a server of our own."""

from __future__ import annotations

import contextlib
import http.server
import threading
from pathlib import Path

import pytest
import torch

from lens_models.depth import catalog
from lens_models.depth.catalog import (
    PUBLISHED,
    DownloadError,
    Published,
    choices,
    download,
    find,
    local_models,
)
from lens_models.depth.metric3d.config import Metric3DConfig
from lens_models.depth.metric3d.network import Metric3Dv2, load_metric3d

FILE = "metric_depth_vit_tiny_800k.pth"


class Hub(http.server.BaseHTTPRequestHandler):
    """A server with one file and every bad habit: `habits` is taken from the front, one per request."""

    body, habits, asked = b"", [], []

    def do_GET(self):
        self.asked.append((self.path, self.headers.get("Range")))
        habit = self.habits.pop(0) if self.habits else "good"
        body, start = self.body, 0
        wanted = self.headers.get("Range")
        if habit == "gone":
            self.send_error(404)
            return
        if habit == "busy":
            self.send_error(503)
            return
        if wanted and habit != "no ranges":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = (start + len(body)) // 2 if habit == "hangs up" else len(body)
        with contextlib.suppress(ConnectionError):  # whoever asked may have seen enough
            self.wfile.write(body[start:end])

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(body: bytes, *habits: str):
    hub = type("OneHub", (Hub,), {"body": body, "habits": list(habits), "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), hub) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", hub.asked
        server.shutdown()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> bytes:
    torch.manual_seed(0)
    network = Metric3Dv2(Metric3DConfig(24, 1, 2, "mlp", False, (8, 8), 8, 8, 1))
    path = tmp_path_factory.mktemp("hub") / FILE
    torch.save({"model_state_dict": {f"depth_model.{n}": t for n, t in network.state_dict().items()}}, path)
    return path.read_bytes()


@pytest.fixture
def fetch(checkpoint, tmp_path, monkeypatch):
    """Downloads `body` from a server with habits into tmp_path; remembers requests and progress."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(catalog, "_PAUSE_S", 0.0)

    def run(*habits, body=checkpoint, check=load_metric3d, on_progress=None):
        with serving(body, *habits) as (url, asked):
            monkeypatch.setenv("HF_ENDPOINT", url)
            run.asked, run.steps = asked, []
            return download(
                Published(FILE, "Tiny", "someone/Tiny", len(checkpoint), "none"),
                tmp_path / "models",
                check=check,
                on_progress=on_progress or (lambda *step: run.steps.append(step)),
            )

    return run


@pytest.fixture
def part(tmp_path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models" / (FILE + ".part")


def test_a_download(fetch, checkpoint, tmp_path):
    path = fetch()
    assert path == tmp_path / "models" / FILE
    assert path.read_bytes() == checkpoint
    assert [f.name for f in path.parent.iterdir()] == [FILE]
    assert fetch.asked == [(f"/someone/Tiny/resolve/main/{FILE}", None)]
    assert fetch.steps[0] == (0, len(checkpoint))
    assert fetch.steps[-1] == (len(checkpoint), len(checkpoint))


def test_it_goes_on_where_it_stopped(fetch, checkpoint, part):
    part.write_bytes(checkpoint[:1000])
    assert fetch().read_bytes() == checkpoint
    assert [r for _, r in fetch.asked] == ["bytes=1000-"]
    assert fetch.steps[0] == (1000, len(checkpoint))


def test_a_broken_connection_is_picked_up(fetch, checkpoint):
    assert fetch("hangs up", "hangs up", "busy", "hangs up").read_bytes() == checkpoint
    starts = [int(r.removeprefix("bytes=")[:-1]) for _, r in fetch.asked if r]
    assert starts == sorted(starts)
    assert len(fetch.asked) >= 5


def test_a_server_that_cannot_continue(fetch, checkpoint, part):
    part.write_bytes(b"x" * 1000)
    assert fetch("no ranges").read_bytes() == checkpoint


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_a_part_that_is_already_whole_or_too_long(fetch, checkpoint, part, extra):
    part.write_bytes(checkpoint + extra)
    assert fetch().read_bytes() == checkpoint


def test_another_file_is_refused_before_it_is_fetched(fetch, part):
    with pytest.raises(
        DownloadError, match=r"offers 1,485 bytes, but the published file has .* another file"
    ):
        fetch(body=b"<!doctype html>" * 99)
    assert not part.exists()


def test_another_checkpoint_is_removed(fetch, checkpoint, part):
    with pytest.raises(
        DownloadError, match=r"not the published file, so it was removed.*incomplete or damaged"
    ):
        fetch(body=bytes(len(checkpoint)))
    assert not list(part.parent.iterdir())


def test_a_file_that_is_gone(fetch, tmp_path):
    with pytest.raises(DownloadError, match=r"404 Not Found") as caught:
        fetch("gone")
    assert len(fetch.asked) == 1
    sentence = str(caught.value)
    for part_of_it in (FILE, str(tmp_path / "models"), f"/someone/Tiny/resolve/main/{FILE}"):
        assert part_of_it in sentence.partition("Download ")[2]


def test_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(catalog, "_PAUSE_S", 0.0)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    small = PUBLISHED[0]
    with pytest.raises(
        DownloadError, match=r"refused.*Download metric_depth_vit_small_800k.pth \(150 MB\) from"
    ):
        download(small, tmp_path, check=load_metric3d)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HF_ENDPOINT")
    with pytest.raises(
        DownloadError, match=r"HF_HUB_OFFLINE is set.*https://huggingface.co/JUGGHM/Metric3D/"
    ):
        download(small, tmp_path, check=load_metric3d)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_keeps_what_is_here(fetch, checkpoint, part, monkeypatch):
    class Interrupted(Exception):
        pass

    def stop(here, total):
        if here:
            raise Interrupted

    monkeypatch.setattr(catalog, "_BLOCK", 1000)
    with pytest.raises(Interrupted):
        fetch(on_progress=stop)
    assert part.read_bytes() == checkpoint[:1000]
    assert fetch().read_bytes() == checkpoint


def test_no_room(fetch, part, monkeypatch):
    monkeypatch.setattr(catalog.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(DownloadError, match=r"has room for 10 bytes, and .* are to come"):
        fetch()
    assert not part.exists()


def test_a_folder_in_the_way(fetch, part):
    part.mkdir()
    with pytest.raises(DownloadError, match=r"cannot be written .* Download "):
        fetch()


def test_what_is_on_this_machine(tmp_path):
    for name in ("a.pth", "b/c.safetensors", "notes.txt", "x.pth.part", ".hidden/d.pth"):
        (tmp_path / "one" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "one" / name).touch()
    folder = tmp_path / "one" / "zoedepth-nyu"
    folder.mkdir()
    (folder / "config.json").touch()
    (folder / "model.safetensors").touch()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "a.pth").touch()
    places = [("", tmp_path / "one"), ("", tmp_path / "nowhere"), ("depth/", tmp_path / "two")]
    found = local_models(places)
    assert list(found) == ["a.pth", "b/c.safetensors", "depth/a.pth", "zoedepth-nyu"]
    assert found["zoedepth-nyu"] == folder
    assert local_models([("", tmp_path / "one"), ("", tmp_path / "two")])["a.pth"].parent.name == "one"


def test_choices():
    small = PUBLISHED[0]
    assert choices({}) == [p.entry for p in PUBLISHED]
    here = {small.file: Path("here")}
    # a workflow saved before the download finds its choice in the menu, and the file
    assert choices(here) == [small.file, *(p.entry for p in PUBLISHED)]
    assert small.entry == "metric_depth_vit_small_800k.pth (download)"
    assert find(small.entry, {}) is small
    assert find(small.entry, here) == here[small.file]  # fetched since the workflow was saved
    with pytest.raises(ValueError, match=r'choose "metric_depth_vit_small_800k.pth \(download\)"'):
        find(small.file, {})
    with pytest.raises(ValueError, match=r"other\.pth is not among the depth models"):
        find("other.pth", {})
    assert all("no licence" in p.licence for p in PUBLISHED)
