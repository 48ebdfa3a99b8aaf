"""The pack inside ComfyUI: it loads without a word of complaint, and its nodes are what they were."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from host.test_running import sweep
from tools import provision
from tools.provision import REPO
from tools.server import PACK

GOLDEN = Path(__file__).parent / "golden" / "object_info.json"
FILES = ("base", "file", "heads", "trunk")
HEAVY = (
    "cv2", "diffusers", "kornia", "matplotlib", "numba", "scipy", "skimage", "torchvision", "transformers",
)  # fmt: skip

# Loads the pack as ComfyUI does, where ComfyUI itself is loaded already. Because that has brought some heavy
# modules by then, what the pack asks for is noted, and not only what is new.
LOAD = """
import asyncio, builtins, importlib.util, json, sys, time
sys.path.insert(0, ".")
repo, sys.argv = sys.argv[1], ["main.py", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import torch, comfy.model_management, comfy.utils, execution, folder_paths, nodes, server, comfy_api.latest
asked, real_import = set(), builtins.__import__

def noting(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and str((globals or {}).get("__name__")).partition(".")[0] == "pack":
        asked.add(name.partition(".")[0])
    return real_import(name, globals, locals, fromlist, level)

before, start, builtins.__import__ = set(sys.modules), time.process_time(), noting
entry = repo + "/__init__.py"
spec = importlib.util.spec_from_file_location("pack", entry, submodule_search_locations=[repo])
module = sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

async def found():
    extension = await module.comfy_entrypoint()
    await extension.on_load()
    return [node.GET_SCHEMA().node_id for node in await extension.get_node_list()]

ids = asyncio.run(found())
seconds = time.process_time() - start
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps({"seconds": seconds, "nodes": ids, "modules": sorted(new | asked)}))
"""


def our_nodes(comfy) -> dict:
    return {name: info for name, info in comfy.object_info().items() if name.startswith("FineDefocus")}


def written_nodes() -> set[str]:
    """The node ids that stand in the source."""
    files = (REPO / "nodes").rglob("*.py")
    return {node_id for f in files for node_id in re.findall(r'node_id="(\w+)"', f.read_text())}


@pytest.mark.host
def test_every_node_is_registered(comfy):
    assert written_nodes()
    assert set(our_nodes(comfy)) == written_nodes()


@pytest.mark.host
def test_comfyui_has_no_complaint_about_the_pack(comfy):
    if not hasattr(comfy, "log_text"):
        pytest.skip("the log of the ComfyUI at COMFYUI_URL is not ours to read")
    start = comfy.log_text().split("Starting server")[0]
    plain = re.sub(r"\x1b\[[0-9;]*m", "", start)
    about_us = [line for line in plain.splitlines() if PACK in line or "fine_defocus" in line]
    assert about_us, "the pack is not mentioned at all, so it was not loaded"
    assert not [line for line in about_us if re.search(r"WARN|ERROR|FAILED|Cannot import", line)]


@pytest.mark.host
@pytest.mark.parametrize("lens", ["FineDefocusTAFLens", "FineDefocusDrBokehLens"])
def test_the_log_has_no_complaint_while_a_lens_works(comfy, lens):
    """Neither of ours, nor of Python about what our modules do."""
    if not hasattr(comfy, "log_text"):
        pytest.skip("the log of the ComfyUI at COMFYUI_URL is not ours to read")
    graph, ids = sweep(distance=2.66)
    graph[ids["lens"]]["class_type"] = lens
    before = len(comfy.log_text())
    comfy.prompt(graph)
    said = comfy.log_text()[before:]
    assert "Prompt executed" in said
    assert [line for line in said.splitlines() if re.search(r"warn|error|traceback", line, re.I)] == []


@pytest.mark.host
def test_object_info_is_what_it_was(comfy, request):
    """Names, types, order, defaults and ranges of every input are a promise to saved workflows."""
    now = {name: stripped(info) for name, info in sorted(our_nodes(comfy).items())}
    if request.config.getoption("--update-golden"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert now == json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.host
def test_translations_are_served_and_name_what_there_is(comfy):
    """Every language is complete: all nodes, a name for every input and output, and a tooltip where English
    has one. Where main.json translates categories, it translates all of ours.

    Nor is there a key that no node has, as nobody would ever see it. The front end reads braces, @ and | in
    names and descriptions (not in tooltips) as its own signs, so those have none.
    """
    nodes, served, wrong = our_nodes(comfy), comfy.get("/i18n"), []

    def shared(where: str, there, said) -> list[str]:
        wrong.extend(f"{where}: {key} is missing" for key in there if key not in said)
        wrong.extend(f"{where}: {key} is nothing we have" for key in said if key not in there)
        return [key for key in there if key in said]

    def check_name(where: str, text: str | None) -> None:
        if not (text or "").strip() or set("{}@|") & set(text):
            wrong.append(f"{where} is {text!r}")

    languages = sorted(path.name for path in (REPO / "locales").iterdir())
    assert languages
    for language in languages:
        ours = {k: v for k, v in served[language]["nodeDefs"].items() if k.startswith("FineDefocus")}
        for node in shared(language, nodes, ours):
            info, words = nodes[node], ours[node]
            for key in ("display_name", "description"):
                check_name(f"{language} {node} {key}", words.get(key))
            specs = {
                k: v for group in ("required", "optional") for k, v in info["input"].get(group, {}).items()
            }
            tips = info["output_tooltips"] or [None] * len(info["output"])
            english = {
                "inputs": {
                    key: options[0].get("tooltip") if options else None
                    for key, (_, *options) in specs.items()
                },
                "outputs": {str(i): tip for i, tip in enumerate(tips)},
            }
            for side, tooltips in english.items():
                for key in shared(f"{language} {node} {side}", tooltips, words[side]):
                    said, where = words[side][key], f"{language} {node} {side} {key}"
                    check_name(f"{where} name", said.get("name"))
                    if bool(tooltips[key]) != bool((said.get("tooltip") or "").strip()):
                        wrong.append(f"{where} tooltip is {said.get('tooltip')!r}")
        main = REPO / "locales" / language / "main.json"
        if main.exists():
            # the front end translates what is between the slashes of a category, each by itself
            parts = {part: None for info in nodes.values() for part in info["category"].split("/")}
            said = json.loads(main.read_text(encoding="utf-8"))["nodeCategories"]
            for part in shared(f"{language} categories", parts, said):
                check_name(f"{language} category {part}", served[language]["nodeCategories"].get(part))
    assert not wrong, "\n".join(wrong)


def stripped(info: dict) -> dict:
    """What a saved workflow relies on: no words for people, no lists of files, which differ by machine."""
    words = ("description", "display_name", "output_tooltips", "python_module", "search_aliases")
    info = {key: value for key, value in info.items() if key not in words}
    for inputs in info["input"].values():
        for name, (kind, *options) in inputs.items():
            for option in options:
                option.pop("tooltip", None)
                if kind == "COMBO" and name in FILES:
                    option.pop("options")
    return info


@pytest.mark.host
def test_loading_the_pack_imports_nothing_heavy(capsys):
    host = provision.host()
    env = {**os.environ, "PYTHONPATH": str(host.shim or "")}
    arguments = [str(host.python), "-c", LOAD, str(REPO)]
    ran = subprocess.run(arguments, cwd=host.checkout, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout.splitlines()[-1])
    with capsys.disabled():
        sys.stdout.write(f"\nimport of the pack beyond ComfyUI and torch: {answer['seconds']:.3f} s CPU\n")
    assert set(answer["nodes"]) == written_nodes()
    assert set(answer["modules"]) & set(HEAVY) == set()


def test_the_optics_import_nothing_heavy():
    """Here nothing else has loaded them before."""
    code = "import sys, lens_models; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert not {name.partition(".")[0] for name in ran.stdout.split()} & set(HEAVY)
