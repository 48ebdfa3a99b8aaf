"""Start a real ComfyUI with this pack in it, talk to it over HTTP, and end it.

Standard library only, as `dev.py` uses it before anything is installed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import mimetypes
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

from .provision import CACHE, REPO, Host

log = logging.getLogger("fine_defocus.host")

PACK = "ComfyUI-Fine-Defocus"
FOLDERS = ("custom_nodes", "input", "output", "temp", "user", "models")
LOGS_KEPT = 10

# A loopback server is asked directly, whatever proxy the environment names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class HostError(RuntimeError):
    """ComfyUI did not start, refused a prompt or failed while running one; the message has its words."""


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _node_errors(answer: dict) -> str:
    """ComfyUI's answer to a refused prompt as readable lines."""
    lines = [answer.get("error", {}).get("message", "") or str(answer.get("error", ""))]
    for node_id, node in (answer.get("node_errors") or {}).items():
        for error in node["errors"]:
            lines.append(f"node {node_id} {node['class_type']}: {error['message']}: {error['details']}")
    return "\n".join(line for line in lines if line)


class Server:
    """A running ComfyUI at a URL."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.client_id = uuid.uuid4().hex

    # ----------------------------------------------------------------------------------- plain HTTP

    def request(self, path: str, data: bytes | None = None, content_type: str = "") -> bytes:
        headers = {"Content-Type": content_type} if content_type else {}
        return _opener.open(urllib.request.Request(self.url + path, data, headers), timeout=60).read()

    def get(self, path: str, **query):
        return json.loads(self.request(path + ("?" + urllib.parse.urlencode(query) if query else "")))

    def post(self, path: str, body: dict):
        answer = self.request(path, json.dumps(body).encode(), "application/json")
        return json.loads(answer) if answer else None

    def object_info(self, node: str | None = None) -> dict:
        """Every node's description, or one node's."""
        return self.get(f"/object_info/{node}")[node] if node else self.get("/object_info")

    def upload(self, file: Path, name: str | None = None) -> str:
        """Put a file into ComfyUI's input folder; returns the name a node knows it by."""
        file = Path(file)
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        mark = uuid.uuid4().hex
        parts = [
            f'--{mark}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'.encode(),
            f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="{name or file.name}"\r\n'
            f"Content-Type: {kind}\r\n\r\n".encode(),
            file.read_bytes(),
            f"\r\n--{mark}--\r\n".encode(),
        ]
        answer = json.loads(
            self.request("/upload/image", b"".join(parts), f"multipart/form-data; boundary={mark}")
        )
        return "/".join(filter(None, (answer["subfolder"], answer["name"])))

    def view(self, image: dict) -> bytes:
        """The bytes of a picture named in a history entry."""
        return self.request("/view?" + urllib.parse.urlencode(image))

    # -------------------------------------------------------------------------------------- prompts

    def queue(self, prompt: dict, client_id: str | None = None) -> str:
        """Queue a workflow in API form: its prompt id. Refused: HostError with the nodes' messages."""
        body = json.dumps({"prompt": prompt, "client_id": client_id or self.client_id}).encode()
        try:
            answer = json.loads(self.request("/prompt", body, "application/json"))
        except urllib.error.HTTPError as error:
            raise HostError(_node_errors(json.loads(error.read()))) from None
        if answer.get("node_errors"):
            self.cancel(answer["prompt_id"])
            raise HostError(_node_errors(answer))
        return answer["prompt_id"]

    def cancel(self, prompt_id: str) -> None:
        self.post("/queue", {"delete": [prompt_id]})
        self.post("/interrupt", {"prompt_id": prompt_id})

    def wait(self, prompt_id: str, timeout: float = 300) -> dict:
        """The history entry of a prompt once it has ended, whatever its status."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self.check()
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry:
                return entry
            time.sleep(0.05)
        self.cancel(prompt_id)
        raise HostError(f"The prompt was not finished after {timeout:.0f} s.")

    def prompt(self, prompt: dict, timeout: float = 300) -> dict:
        """Run a workflow in API form: its history entry. A node's failure: HostError with its words."""
        entry = self.wait(self.queue(prompt), timeout)
        if entry["status"]["status_str"] != "success":
            for event, what in entry["status"]["messages"]:
                if event == "execution_error":
                    where = f"node {what['node_id']} {what['node_type']}"
                    trace = "".join(what["traceback"])
                    error = f"{what['exception_type']}: {what['exception_message']}"
                    raise HostError(f"{where}: {error}\n{trace}")
            raise HostError(f"The prompt ended as {entry['status']['messages'][-1]}.")
        return entry

    def interrupt(self) -> None:
        self.post("/interrupt", {})

    def check(self) -> None:
        """Raise if the server is known to be gone."""

    def wait_ready(self, timeout: float = 180) -> None:
        end = time.monotonic() + timeout
        while True:
            self.check()
            with contextlib.suppress(OSError, ValueError):
                self.object_info("LoadImage")
                return
            if time.monotonic() > end:
                raise HostError(f"No ComfyUI answered at {self.url} within {timeout:.0f} s.{self.log_tail()}")
            time.sleep(0.2)

    def log_tail(self, lines: int = 25) -> str:
        return ""


class ComfyHost(Server):
    """A ComfyUI of our own: temporary base folder with this pack linked in, free port, own process group."""

    def __init__(self, host: Host, base: Path | None = None, arguments: tuple[str, ...] = ()):
        super().__init__(f"http://127.0.0.1:{_free_port()}")
        self.host = host
        self.keep = base is not None
        self.base = Path(base) if base else None
        self.arguments = arguments
        self.process: subprocess.Popen | None = None
        self.log_path = CACHE / "logs" / f"comfyui-{self.url.rsplit(':', 1)[1]}.log"

    def _make_base(self) -> None:
        if self.base is None:
            self.base = Path(tempfile.mkdtemp(prefix="fine-defocus-"))
        for folder in FOLDERS:
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        link = self.base / "custom_nodes" / PACK
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(REPO, target_is_directory=True)

    def command(self) -> list[str]:
        """How ComfyUI is started. COMFYUI_ARGS replaces `--cpu`, for a machine whose GPU is to be used."""
        host = self.host
        device = shlex.split(os.environ.get("COMFYUI_ARGS", "--cpu"))
        port = self.url.rsplit(":", 1)[1]
        where = ["--listen", "127.0.0.1", "--port", port, "--base-directory", str(self.base)]
        alone = ["--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
        page = ["--front-end-root", str(host.front_end)] if host.front_end else []
        return [str(host.python), "main.py", *device, *where, *alone, *page, *self.arguments]

    def start(self, timeout: float = 180) -> ComfyHost:
        self._make_base()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        older = sorted(self.log_path.parent.glob("comfyui-*.log"), key=lambda p: p.stat().st_mtime)
        for path in older[: -(LOGS_KEPT - 1)]:
            path.unlink(missing_ok=True)
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        if self.host.shim:
            env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(self.host.shim), env.get("PYTHONPATH"))))
        with open(self.log_path, "w") as out:
            self.process = subprocess.Popen(
                self.command(), cwd=self.host.checkout, env=env, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            self.wait_ready(timeout)
        except BaseException:
            self.stop()
            raise
        log.info("ComfyUI runs at %s (log: %s)", self.url, self.log_path)
        return self

    def stop(self) -> None:
        """End the whole process group, and remove the base folder if it was ours to make."""
        process, self.process = self.process, None
        if process:
            for number, patience in ((signal.SIGINT, 5), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
                    break
        if self.base and not self.keep:
            shutil.rmtree(self.base, ignore_errors=True)
            self.base = None

    def __enter__(self) -> ComfyHost:
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    def check(self) -> None:
        code = self.process.poll() if self.process else "not started"
        if code is not None:
            how = f"It was started with {self.host.python}."
            raise HostError(f"ComfyUI has ended (exit status {code}). {how}{self.log_tail()}")

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace")

    def log_tail(self, lines: int = 25) -> str:
        if not self.log_path.is_file():
            return ""
        return f"\nThe end of {self.log_path}:\n" + "\n".join(self.log_text().splitlines()[-lines:])


@contextlib.contextmanager
def connect(host=None, base: Path | None = None):
    """The server at COMFYUI_URL if set, else one of our own for the length of the block.

    `host` is a function that returns the Host to start; it is not called when a running server is given.
    """
    url = os.environ.get("COMFYUI_URL")
    if url:
        server = Server(url)
        server.wait_ready(20)
        yield server
        return
    with ComfyHost(host(), base) as server:
        yield server
