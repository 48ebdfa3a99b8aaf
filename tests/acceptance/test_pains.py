"""What users of other defocus packs suffer, and that it cannot happen here: the pains that no other test file
has a place for.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import torch

from lens_models import Camera, Focus, coc_px, dr_bokeh_lens, taf_lens
from tools.provision import REPO


def sources(*folders: str) -> list[tuple[Path, ast.Module]]:
    """The files of some folders, as paths of the repository, with their syntax trees."""
    files = [file for folder in folders for file in sorted((REPO / folder).rglob("*.py"))]
    return [(file.relative_to(REPO), ast.parse(file.read_text(encoding="utf-8"))) for file in files]


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a chain of attributes, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def imported(tree: ast.Module) -> set[str]:
    """Full names of the modules a file imports from outside the pack."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


# ------------------------------------------------------------------------------------ 1 focus direction
def test_focus_direction_is_decided_in_one_place():
    """A lens gets metres. What a grey means is asked by Depth from Image alone, and there is no default way
    around it: no other node has an input that says near or far, bright or dark, or turns depth over."""
    turning = re.compile(r"convention|invert|reverse|flip|disparity|near_is|is_near")
    nodes = json.loads((REPO / "tests" / "host" / "golden" / "object_info.json").read_text(encoding="utf-8"))
    asked = {
        (node, name)
        for node, described in nodes.items()
        for inputs in described["input"].values()
        for name in inputs
        if turning.search(name)
    }
    assert asked == {("FineDefocusDepthFromImage", "convention")}


# ------------------------------------------------------------------------------------------ 4 highlights
@pytest.mark.parametrize("lens", [taf_lens, dr_bokeh_lens])
@pytest.mark.parametrize("f_number", [0.7, 1.0, 1.4, 2.8, 8.0])
def test_highlights_stay_where_they_are(lens, f_number):
    """A kernel that is half a pixel off its centre moves small lights. Odd and even sizes, 8 px and less."""
    for height, width in ((65, 65), (64, 66)):
        picture = torch.zeros(1, 3, height, width)
        picture[:, :, 31, 33] = 1.0
        depth = torch.full((1, height, width), 9.0)
        focus, camera = Focus(1.5), Camera(f_number, 85.0)
        assert 0.2 < coc_px(depth, focus, camera, width).max() / 2 < 8
        light = lens(picture, depth, focus, camera)[0, 0].double()
        rows, columns = light.sum(1), light.sum(0)
        centre = [(part * torch.arange(len(part))).sum() / part.sum() for part in (rows, columns)]
        assert centre == pytest.approx([31.0, 33.0], abs=1e-4)  # px; rounding of float32 reaches 1e-6
        assert light.sum().item() == pytest.approx(1.0, rel=1e-5)


# --------------------------------------------------------------------------------------------- 5 batches
def test_batches_no_assert_speaks_to_a_user():
    """A user's mistake is a sentence of an error: no assert, whose words are code, and nothing with -O."""
    found = [
        f"{file}:{node.lineno}"
        for file, tree in sources("nodes", "lens_models")
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert found == []


# --------------------------------------------------------------------------------------------- 6 devices
def test_devices_are_the_hosts_choice():
    """Nothing asks whether there is a GPU, and nothing sends to one by name: ComfyUI says where to work."""
    asking = re.compile(r"^torch\.(cuda|mps|xpu)\.(is_available|device_count|set_device|current_device)$")
    found = []
    for file, tree in sources("nodes", "lens_models"):
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            name = dotted(call.func)
            sent = name.split(".")[-1] in ("to", "device", "cuda") or any(
                k.arg == "device" for k in call.keywords
            )
            words = [
                a.value
                for a in [*call.args, *(k.value for k in call.keywords)]
                if isinstance(a, ast.Constant)
            ]
            named = any(isinstance(w, str) and w.split(":")[0] in ("cuda", "mps", "xpu") for w in words)
            if asking.match(name) or name.endswith(".cuda") or (sent and named):
                found.append(f"{file}:{call.lineno}: {ast.unparse(call)}")
    assert found == []
    deciding = [file.as_posix() for file, tree in sources("nodes") if "get_torch_device" in ast.unparse(tree)]
    assert {"nodes/lens/render.py", "nodes/depth/load_model.py", "nodes/shared/networks.py"} <= set(deciding)


# --------------------------------------------------------------------------- 7 downloads and offline use
def test_downloads_only_in_a_loader():
    """One file speaks to the network, one node calls it, and libraries are told to stay on this machine."""
    network = ("urllib.request", "http.client", "requests", "httpx", "aiohttp", "huggingface_hub", "socket")
    speaking, calling, local = set(), set(), []
    for file, tree in sources("nodes", "lens_models"):
        if any(name == n or name.startswith(f"{n}.") for name in imported(tree) for n in network):
            speaking.add(file.as_posix())
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            name = dotted(call.func).split(".")[-1] or getattr(call.func, "attr", "")
            if name in ("download", "hf_hub_download", "snapshot_download", "load_state_dict_from_url"):
                calling.add(file.as_posix())
            if name == "from_pretrained":
                local += [k.value.value for k in call.keywords if k.arg == "local_files_only"] or [False]
    assert speaking == {"lens_models/depth/catalog.py"}
    assert calling - speaking == {"nodes/depth/load_model.py"}
    assert local
    assert all(value is True for value in local)


# --------------------------------------------------------------------------------- 8 dependency conflicts
def test_dependencies_have_no_upper_pin():
    """What installing the pack installs: no version that could clash with another pack's, never torch."""
    required = [line.strip() for line in (REPO / "requirements.txt").read_text().splitlines()]
    required = [line for line in required if line and not line.startswith("#")]
    declared = re.search(r"^dependencies = \[(.*?)\]", (REPO / "pyproject.toml").read_text(), re.M | re.S)[1]
    assert sorted(re.findall(r'"([^"]+)"', declared)) == sorted(required)
    for line in required:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+(>=[0-9.]+)?", line), f"{line} holds other packs back"
    names = {re.split(r"[^\w.-]", line)[0].lower() for line in required}
    assert not names & {
        "torch",
        "torchvision",
        "xformers",
        "opencv-python",
        "diffusers",
        "transformers",
        "kornia",
    }


# -------------------------------------------------------------------------------------------- 13 banding
SLOPE = 1.0 / torch.linspace(1 / 2.0, 1 / 8.0, 512)
FOCUS, WIDE_OPEN = Focus(2.0), Camera(1.4, 85.0)


@pytest.mark.parametrize("lens", [taf_lens, dr_bokeh_lens])
def test_banding_no_step_in_a_smooth_ramp(lens):
    """A faint ramp of light on a slanted wall, out of focus from 0 to 14 px: no 8-bit step anywhere.

    512 columns over a fifth of the range are 51 steps of 8 bits; here every column has a value of its own.
    """
    ramp = torch.linspace(0.2, 0.4, 512).expand(1, 3, 96, 512)
    row = lens(ramp, SLOPE.expand(1, 96, 512), FOCUS, WIDE_OPEN)[0, 0, 48, 40:-40].double()
    steps = row.diff() / (0.2 / 511)
    # a ramp stays what it is under any symmetric disc; measured 4e-4 and 6e-3, layers being cut and joined
    assert (steps - 1).abs().max() < 0.02


@pytest.mark.parametrize("lens", [taf_lens, dr_bokeh_lens])
def test_banding_blur_grows_without_a_step(lens):
    """Stripes along the same wall lose contrast column by column. Depth in 24 or 256 levels would stand still
    for some columns and jump at the next."""
    wave = torch.cos(
        2 * torch.pi * torch.arange(128) / 32
    )  # wide enough for discs of 14 px to leave contrast
    stripes = (0.5 + 0.4 * wave)[None, None, :, None].expand(1, 3, 128, 512)
    radius = coc_px(SLOPE.expand(1, 1, 512), FOCUS, WIDE_OPEN, 512) / 2
    assert radius.min() < 0.1
    assert 13 < radius.max() < 15
    out = lens(stripes, SLOPE.expand(1, 128, 512), FOCUS, WIDE_OPEN)[0, 0, 32:96, 20:-20].double()
    contrast = (out * wave[32:96, None]).sum(0) / 32 / 0.4
    lost = -contrast.diff()
    assert contrast[0] > 0.99
    assert contrast[-1] < 0.35
    # measured 1.6e-4 to 2.2e-3 per column; 256 levels of depth give 0 to 1.1e-2
    assert lost.min() > 5e-5
    assert lost.max() < 4e-3
