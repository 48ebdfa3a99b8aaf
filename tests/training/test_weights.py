"""Fetching the metrics' weights from a server of the test's own."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import threading

import pytest

from training import weights
from training.__main__ import main

CONTENT = b"not really weights" * 100
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def served(monkeypatch):
    """The three files' home is a server here, and counts what it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    home = f"http://127.0.0.1:{server.server_address[1]}/files"
    local = {
        name: dataclasses.replace(file, home=home, sha256=HASH[:8]) for name, file in weights.FILES.items()
    }
    monkeypatch.setattr(weights, "FILES", local)
    yield asked
    server.shutdown()
    server.server_close()


def test_a_file_is_fetched_once_and_hashed_every_time(served, tmp_path, capsys):
    assert main(["weights", "fetch", "lpips", "--to", str(tmp_path)]) == 0
    path = tmp_path / "alex.pth"
    assert path.read_bytes() == CONTENT
    assert main(["weights", "fetch", "lpips", "--to", str(tmp_path)]) == 0
    assert served == ["/files/alex.pth"]
    assert capsys.readouterr().out.splitlines() == [str(path)] * 2
    path.write_bytes(b"another")
    with pytest.raises(
        ValueError, match=r"alex.pth is not the published file: its sha256 is .* Move it away"
    ):
        weights.fetch("lpips", tmp_path)


def test_another_file_is_not_kept(served, tmp_path, monkeypatch):
    wrong = {"lpips": dataclasses.replace(weights.FILES["lpips"], sha256="0" * 64)}
    monkeypatch.setattr(weights, "FILES", wrong)
    with pytest.raises(
        RuntimeError, match=rf'expected "0+", got "{HASH}".*Download it from http.*/alex\.pth'
    ):
        weights.fetch("lpips", tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_network_the_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    away = {"lpips": dataclasses.replace(weights.FILES["lpips"], home="http://127.0.0.1:9/files")}
    monkeypatch.setattr(weights, "FILES", away)
    with pytest.raises(
        RuntimeError, match=r"alex\.pth cannot be fetched: .* Download it from .* put it into"
    ):
        weights.fetch("lpips", tmp_path)
    assert not list(tmp_path.iterdir())


def test_unknown_names_and_the_list(served, tmp_path, capsys, caplog):
    assert main(["weights", "fetch", "vgg", "--to", str(tmp_path)]) == 1
    assert 'no weights "vgg": use one of alexnet, lpips, inception' in caplog.text
    assert main(["weights", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["alexnet", "lpips", "inception"]
    assert served == []


def test_the_pins_are_those_of_the_files_names():
    """torch puts the first digits of the hash into the name."""
    for name in ("alexnet", "inception"):
        pinned = weights.FILES[name]
        assert pinned.file.removesuffix(".pth").endswith(f"-{pinned.sha256}")
    assert len(weights.FILES["lpips"].sha256) == 64
