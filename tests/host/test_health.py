"""The pack as an artist gets it: the registry's archive in a ComfyUI of its own, used and removed again.

The registry packs what git tracks, less what `.comfyignore` names; git itself reads that file here.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from host.toys import write_depth_weights
from tools import motorcycle, provision
from tools.provision import REPO
from tools.server import PACK, ComfyHost
from tools.workflow import to_prompt

MOST_BYTES = 5_000_000
PICTURES = (".jpg", ".png", ".webp", ".gif", ".mp4")
#: Both lenses with the compiled blur, and a network that is loaded.
USED = ("lens_swap", "photo_to_bokeh")
NODE_ID = re.compile(r'node_id="(\w+)"')
#: What ComfyUI itself or the person leaves: pictures and settings, ComfyUI's log of the run.
NOT_OURS = re.compile(r"(input|output|temp|models/geometry_estimation)/[^/]+|user/comfyui[\w.]*\.log[\w.]*")


def git(*arguments: str) -> list[str]:
    ran = subprocess.run(["git", "ls-files", "-z", *arguments], cwd=REPO, capture_output=True, check=True)
    return [name for name in ran.stdout.decode().split("\0") if name]


def published() -> list[str]:
    """The files of the archive."""
    return sorted(set(git()) - set(git("--ignored", "--cached", "--exclude-from=.comfyignore")))


def packed(names: list[str], path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(REPO / name, name)
    return path


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


# -------------------------------------------------------------------------------------- the archive
def test_the_archive_is_small(tmp_path):
    names = published()
    drawn = [name for name in names if name.startswith("example_workflows/") and name.endswith(PICTURES)]
    assert drawn
    whole = packed(names, tmp_path / "whole.zip").stat().st_size
    without = packed(sorted(set(names) - set(drawn)), tmp_path / "without.zip").stat().st_size
    assert without < MOST_BYTES
    assert whole < MOST_BYTES


def test_the_archive_holds_the_pack_and_no_workshop():
    names = published()
    tops = {name.partition("/")[0] for name in names}
    assert tops >= {
        "__init__.py", "nodes", "lens_models", "web", "locales", "example_workflows", "pyproject.toml",
        "requirements.txt", "README.md", "CHANGELOG.md", "LICENSE",
    }  # fmt: skip
    assert not tops & {"tests", "tools", "benchmarks", "training", "dev.py"}
    assert [name for name in names if name.startswith(".")] == []
    # all of each: a pattern that is not anchored would take a folder of the same name out of the pack
    kept = tuple(f"{top}/" for top in tops)
    assert [name for name in git() if name.startswith(kept) and name not in names] == []


# ------------------------------------------------------------------------- installed, used, removed
@dataclass
class Stay:
    """What was seen of the pack while it was installed, and what was left when it was gone."""

    written: set[str]
    served: dict[str, object]
    log: str
    outputs: list[dict]
    left_in_base: set[str]
    left_at_home: set[str]


def environment(home: Path) -> dict[str, str]:
    """Places outside ComfyUI's folder where a program may leave something, all of them in one folder."""
    folders = {
        "HOME": home, "XDG_CACHE_HOME": home / ".cache", "XDG_CONFIG_HOME": home / ".config",
        "XDG_DATA_HOME": home / ".local/share", "TMPDIR": home / "tmp",
    }  # fmt: skip
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    return {name: str(folder) for name, folder in folders.items()}


def small_photo(folder: Path) -> list[Path]:
    """The demo's photo and its depth at a quarter of their size: time goes to the lenses."""
    paths = motorcycle.write(folder)
    for path in paths:
        with Image.open(path) as whole:
            quarter = whole.resize((whole.width // 4, whole.height // 4), Image.Resampling.NEAREST)
        quarter.save(path)
    return list(paths)


@pytest.fixture(scope="module")
def stay(tmp_path_factory) -> Stay:
    root = tmp_path_factory.mktemp("stay")
    base, home, pack = root / "base", root / "home", root / "base" / "custom_nodes" / PACK
    with zipfile.ZipFile(packed(published(), root / "pack.zip")) as archive:
        archive.extractall(pack)
    write_depth_weights(base)
    host = provision.host()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NUMBA_CACHE_DIR", "PYTHONDONTWRITEBYTECODE"):  # as on an artist's machine
            patch.delenv(name, raising=False)
        for name, value in environment(home).items():
            patch.setenv(name, value)
        with ComfyHost(host, base) as comfy:
            for file in small_photo(root):
                comfy.upload(file)
            info = comfy.object_info()
            served = {
                "nodes": {name: what for name, what in info.items() if name.startswith("FineDefocus")},
                "templates": comfy.get("/api/workflow_templates").get(PACK),
                "i18n": comfy.get("/i18n"),
                "scripts": comfy.get("/extensions"),
                "pages": {
                    name: comfy.request(f"/extensions/{PACK}/docs/{name}.md").decode()
                    for name in info
                    if name.startswith("FineDefocus")
                },
                "thumbnails": [comfy.request(f"/api/workflow_templates/{PACK}/{name}.jpg") for name in USED],
            }
            prompts = [comfy.get(f"/api/workflow_templates/{PACK}/{name}.json") for name in USED]
            outputs = [comfy.prompt(to_prompt(prompt, info))["outputs"] for prompt in prompts]
            log = comfy.log_text()
    written = {node for path in pack.glob("nodes/**/*.py") for node in NODE_ID.findall(path.read_text())}
    shutil.rmtree(pack)
    return Stay(written, served, log, outputs, files_in(base), files_in(home))


@pytest.mark.host
def test_everything_in_it_is_served(stay):
    nodes = stay.served["nodes"]
    assert stay.written
    assert set(nodes) == stay.written
    assert {info["python_module"] for info in nodes.values()} == {f"custom_nodes.{PACK}"}
    assert sorted(stay.served["templates"]) == sorted(
        path.stem for path in (REPO / "example_workflows").glob("*.json") if path.stem != "index"
    )
    for name, page in stay.served["pages"].items():
        assert page.startswith(f"# {nodes[name]['display_name']}"), name
    assert f"/extensions/{PACK}/defocus.js" in stay.served["scripts"]
    for picture in stay.served["thumbnails"]:
        assert Image.open(io.BytesIO(picture)).format == "JPEG"
    for language in (path.name for path in (REPO / "locales").iterdir()):
        assert "FineDefocusFocusPoint" in stay.served["i18n"][language]["nodeDefs"]


@pytest.mark.host
def test_its_workflows_run_and_nothing_is_complained_about(stay):
    for outputs in stay.outputs:
        assert any(output.get("images") for output in outputs.values())
    start, _, run = re.sub(r"\x1b\[[0-9;]*m", "", stay.log).partition("Starting server")
    assert PACK in start
    # nothing but our two workflows ran on this server, so a warning after its start is ours
    complaints = re.compile(r"warn|error|traceback|deprecat", re.I)
    assert [line for line in run.splitlines() if complaints.search(line)] == []
    assert [line for line in start.splitlines() if PACK in line and complaints.search(line)] == []


@pytest.mark.host
def test_nothing_of_it_is_left(stay):
    assert [name for name in stay.left_in_base if not NOT_OURS.fullmatch(name)] == []
    assert stay.left_at_home == set()
