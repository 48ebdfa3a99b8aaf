"""Runs in the host's Python: the nodes on a pretended GPU under ComfyUI's rules for --gpu-only and so on.

`python inside_gpu.py REPO WORK` answers with one line of JSON: {"told": {option: {step: what is wrong, "" for
nothing}}, "untried": nodes}. WORK is the folder of models, inputs and outputs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import sys
import traceback
from types import SimpleNamespace

REPO, WORK = sys.argv[1:]
sys.path.insert(0, ".")
sys.argv = ["main.py", "--cpu", "--base-directory", WORK]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_management as mm  # noqa: E402
import folder_paths  # noqa: E402
import torch  # noqa: E402
from pretend_gpu import DEVICE, OnGPU, PretendGPU  # noqa: E402

torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location(
    "pack", f"{REPO}/__init__.py", submodule_search_locations=[REPO]
)
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])

from pack.nodes import NODES  # noqa: E402

#: ComfyUI's state of memory, and whether results stay on the GPU.
LAUNCHED = {
    "--gpu-only": (mm.VRAMState.HIGH_VRAM, True),
    "--highvram": (mm.VRAMState.HIGH_VRAM, False),
    "plain": (mm.VRAMState.NORMAL_VRAM, False),
    "--lowvram": (mm.VRAMState.LOW_VRAM, False),
    "--novram": (mm.VRAMState.NO_VRAM, False),
}
HEIGHT, WIDTH = 56, 80
#: The CPU's compiled blur and the one that any device has differ by 1e-5, which sRGB's dark end enlarges.
ROUNDING = 1e-4
HIDDEN = SimpleNamespace(prompt=None, extra_pnginfo=None, unique_id="1")
#: Nodes whose inputs are ComfyUI's own generator: tests/host/inside_generate.py has them.
NOT_HERE = {"FineDefocusLoadAIFGenerator", "FineDefocusAIFSampler", "FineDefocusCameraConditioning"}


def on_the_gpu(gpu_only: bool):
    """ComfyUI as it is started with a card of 8 GB."""

    def free(device=None, torch_free_too=False):
        return (6 << 30, 6 << 30) if torch_free_too else 6 << 30

    stack = contextlib.ExitStack()
    for name, value in (
        ("get_torch_device", lambda: DEVICE), ("get_free_memory", free),
        ("get_total_memory", lambda *_, **__: 8 << 30),
    ):  # fmt: skip
        stack.callback(setattr, mm, name, getattr(mm, name))
        setattr(mm, name, value)
    stack.callback(setattr, mm.args, "gpu_only", mm.args.gpu_only)
    mm.args.gpu_only = gpu_only
    stack.enter_context(PretendGPU())
    return stack


class Bench:
    """The nodes one after another, each on what those before it gave; those after a failure get nothing."""

    def __init__(self) -> None:
        self.nodes = {node.GET_SCHEMA().node_id: node for node in NODES}
        self.gave: dict[str, list] = {}
        self.told: dict[str, str] = {}
        self.tried: set[str] = set()

    def __call__(self, what: str, name: str, **given):
        node = self.nodes[f"FineDefocus{name}"]
        self.tried.add(f"FineDefocus{name}")
        inputs = {}
        for i in node.GET_SCHEMA().inputs:
            choices = getattr(i, "options", None)
            default = getattr(i, "default", None)
            if default is None and choices and not i.optional:
                default = choices[0]
            if default is not None:
                inputs[i.id] = default
        here = type(node.__name__, (node,), {"hidden": HIDDEN})
        try:
            with torch.no_grad():
                gave = list(here.execute(**{**inputs, **given}).args or ())
            self.told[what] = self.misplaced(node, gave)
        except Exception:
            gave = [None] * len(node.GET_SCHEMA().outputs)
            self.told[what] = traceback.format_exc()
        self.gave[what] = gave
        return gave

    def misplaced(self, node, gave: list) -> str:
        for output, value in zip(node.GET_SCHEMA().outputs, gave, strict=True):
            if output.io_type in ("IMAGE", "MASK") and value.device != mm.intermediate_device():
                return f"{output.id} is on {value.device}, not on {mm.intermediate_device()}"
        return ""

    def run(self) -> Bench:
        where = mm.intermediate_device()
        random = torch.Generator().manual_seed(0)
        image = torch.rand(1, HEIGHT, WIDTH, 3, generator=random).to(where)
        grey = torch.linspace(0.1, 0.9, WIDTH).expand(HEIGHT, WIDTH)
        subject = (grey > 0.6)[None].float().to(where)
        picture = grey[None, ..., None].expand(1, HEIGHT, WIDTH, 3).contiguous().to(where)
        metres = {"depth": (1.0 + 7.0 * grey)[None].to(where)}
        free = {"aperture": "free", "f_number": 1.4, "focal_mm": 85.0}
        (camera,) = self("Camera", "Camera", **free)
        (cameras, _) = self("Aperture Sweep", "ApertureSweep", camera=camera, sweep="list", f_numbers="1.4 8")
        self("Camera from Photo", "CameraFromPhoto", file="photo.png")
        (depth, _) = self("Load Depth", "LoadDepth", file="depth.npy", unit="metres")
        self("Depth from Image", "DepthFromImage", image=picture)
        self("Depth from Geometry", "DepthFromGeometry", geometry=metres, camera=camera)
        self("Depth Preview", "DepthPreview", depth=depth)
        self("Depth Preview of geometry", "DepthPreview", depth=metres)
        (network,) = self("Load Depth Model", "LoadDepthModel", file="depth.pth", precision="fp32")
        measured = self("Estimate Depth", "EstimateDepth", image=image, depth_model=network, camera=camera)
        (focus,) = self("Focus Distance", "FocusDistance", distance_m=2.0)
        (finder,) = self("Load Focus Model", "LoadFocusModel", file="focus.safetensors")
        self("Predict Focus", "PredictFocus", image=image, depth=depth, focus_model=finder)
        self("Predict Focus, again", "PredictFocus", image=image, depth=measured[0], focus_model=finder)
        self("Predict Focus, no model", "PredictFocus", image=image, depth=metres)
        self("Focus from Mask", "FocusFromMask", depth=depth, mask=subject)
        (rack, *_) = self("Rack Focus", "RackFocus", frames=2, keyframes="0: 2\n-1: 4")
        (steps, *_) = self("Focus Sweep", "FocusSweep", count=2)
        self("Focus Point", "FocusPoint", image=image, depth=depth, camera=camera, subject=subject)
        self("Batch Sweep", "BatchSweep", image=image, depth=metres, camera=cameras, focus=steps)
        (shape,) = self("Aperture Shape", "ApertureShape", shape="picture (kernel input)", kernel=picture)
        scene = {"image": image, "depth": depth, "focus": focus, "camera": cameras}
        (taken, *_) = self("TAF Lens", "TAFLens", **scene)
        self("TAF Lens, a shape", "TAFLens", **scene, shape=shape, highlight_recovery=1.0, tilt=3.0)
        self("TAF Lens, geometry", "TAFLens", **{**scene, "depth": metres, "focus": rack, "camera": camera})
        self("Dr.Bokeh Lens", "DrBokehLens", **scene)
        self("Dr.Bokeh Lens, all", "DrBokehLens", **scene, subject=subject, background=picture, shape=shape)
        self("Dr.Bokeh Lens, rays", "DrBokehLens", **{**scene, "camera": camera}, rays=8)
        self("Contact Sheet", "ContactSheet", images=taken, camera=cameras, focus=focus)
        self("Focus Overlay", "FocusOverlay", image=image, depth=depth, focus=focus, camera=cameras)
        self("Save Photo", "SavePhoto", images=taken, camera=cameras, focus=focus, filename_prefix="gpu")
        self("Blur Monotonicity", "BlurMonotonicity", images=taken, camera=cameras)
        self("Content Consistency", "ContentConsistency", labels=torch.cat([subject, 1 - subject]))
        self("LPIPS", "LPIPS", images=taken, trunk="trunk.pth", heads="heads.pth")
        return self


def numbers(value) -> torch.Tensor | None:
    if isinstance(value, OnGPU):
        value = value.cpu()
    return value.double() if isinstance(value, torch.Tensor) else None


def compared(there: Bench, here: Bench) -> dict[str, str]:
    """What went wrong in every step, or is another picture than the CPU's."""
    told = dict(there.told)
    for what, gave in there.gave.items():
        if told[what]:
            continue
        for i, (mine, plain) in enumerate(zip(gave, here.gave[what], strict=True)):
            a, b = numbers(mine), numbers(plain)
            if a is None:
                continue
            off = (a - b).nan_to_num(posinf=0, neginf=0).abs().max().item()
            scale = max(1.0, b[b.isfinite()].abs().max().item())
            if off > ROUNDING * scale:
                told[what] = f"output {i} is {off:g} off the one of the CPU, of {scale:g}"
    return told


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.ERROR)
    folder_paths.set_input_directory(WORK)
    for name in ("geometry_estimation", "focus", "lpips"):
        folder_paths.folder_names_and_paths[name] = ([WORK], {".pth", ".safetensors"})
    here = Bench().run()
    answer = {"on the CPU": here.told}
    for option, (state, gpu_only) in LAUNCHED.items():
        plain, mm.vram_state = mm.vram_state, state
        with on_the_gpu(gpu_only):
            answer[option] = compared(Bench().run(), here)
            mm.unload_all_models()
        mm.vram_state = plain
    print(json.dumps({"told": answer, "untried": sorted(set(here.nodes) - here.tried - NOT_HERE)}))
