"""The demo: a real photo with measured depth through the pack's lenses, in the real ComfyUI.

Standard library only, as `dev.py` runs it in a plain Python.
"""

from __future__ import annotations

import json
import logging
import subprocess
import time
from pathlib import Path

from . import provision
from .hero import hero
from .server import Server, connect
from .workflow import to_prompt

log = logging.getLogger("fine_defocus.demo")

WORKFLOWS = [
    provision.REPO / "example_workflows" / f"{name}.json" for name in ("aperture_sweep_photo", "lens_swap")
]


def demo(output: Path, serve: bool) -> None:
    """Render the demo's pictures into `output`, print their paths; `serve` leaves ComfyUI open afterwards."""
    inputs = input_files(all_templates=serve)
    log.info("starting ComfyUI ...")
    # A person's own pictures and models outlive the session; a demo's base folder does not.
    with connect(provision.host, provision.CACHE / "serve" if serve else None) as server:
        for path in inputs:
            server.upload(path)
        output.mkdir(parents=True, exist_ok=True)
        info = server.object_info()
        prompts = {
            str(path.relative_to(provision.REPO)): to_prompt(
                json.loads(path.read_text(encoding="utf-8")), info
            )
            for path in WORKFLOWS
        }
        prompts["the animation of the README"] = hero("motorcycle.png", "motorcycle_depth.png")
        for name, prompt in prompts.items():
            log.info("running %s ...", name)
            for path in render(server, prompt, output):
                print(path)
        if serve:
            print(f"ComfyUI is open at {server.url} - the workflows: Templates > Extensions. Ctrl-C ends it.")
            while True:
                server.check()
                time.sleep(1)


def input_files(all_templates: bool) -> list[Path]:
    """The photo and its depth, and the synthetic scenes of the other templates, which only a person opens."""
    python = provision.project()
    folder = provision.CACHE / "photo"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for module in ("motorcycle", *["synthetic_scenes"] * all_templates):
        command = [python, "-m", f"tools.{module}", folder]
        run = subprocess.run(command, cwd=provision.REPO, check=True, stdout=subprocess.PIPE, text=True)
        written += [Path(line) for line in run.stdout.splitlines()]
    return written


def render(server: Server, prompt: dict, output: Path) -> list[Path]:
    """Run one workflow and download what it saved; the nodes' texts, such as warnings, go to the log."""
    start = time.monotonic()
    entry = server.prompt(prompt, timeout=1800)
    log.info("done in %.1f s", time.monotonic() - start)
    written = []
    for node_id, result in entry["outputs"].items():
        for text in result.get("text", []):
            log.info("  %s", text)
        for image in result.get("images", []):
            if prompt[node_id]["class_type"] in ("SaveImage", "SaveAnimatedWEBP"):
                path = output / image["filename"]
                path.write_bytes(server.view(image))
                written.append(path)
    return written
