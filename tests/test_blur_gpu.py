"""The GPU's engine without a GPU: its kernels in Triton's interpreter, and compiled for three cards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")
INSIDE = Path(__file__).with_name("blur_gpu_inside.py")
#: Of the largest value: sums of float32 over up to a few hundred taps against float64.
EXACT = 1e-5


@pytest.fixture(scope="module")
def interpreted() -> dict[str, dict[str, float]]:
    done = subprocess.run(
        [sys.executable, INSIDE], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["gather", "scatter"])
@pytest.mark.parametrize(
    "name",
    [
        "odd size", "batch, RGBA", "beyond the border", "below a pixel", "one pixel", "runs",
        "runs, near the border",
    ],
)  # fmt: skip
def test_kernels_are_the_definition(interpreted, kind, name):
    found = interpreted[f"{kind}, {name}"]
    assert {what: error for what, error in found.items() if not error <= EXACT} == {}


def test_one_picture_serves_a_sweep(interpreted):
    assert interpreted["shared picture"]["value"] <= EXACT


@pytest.mark.parametrize("kind", ["gather", "scatter"])
def test_runs_keep_the_dark_beside_a_highlight(interpreted, kind):
    """Running sums of plain float32 are 4e-2 and 7e-3 off here."""
    assert interpreted["beside a highlight"][kind] <= EXACT


@pytest.mark.parametrize("target", [("cuda", 80, 32), ("cuda", 90, 32), ("hip", "gfx942", 64)])
@pytest.mark.parametrize("kernel", ["collect", "collect with a dot product", "spread"])
@pytest.mark.parametrize("runs", [False, True])
def test_kernels_compile_ahead_of_time(target, kernel, runs):
    """To the machine code of cards that are not here, for RGB."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from lens_models.blur import triton_kernels

    name = kernel.split()[0]
    function = getattr(triton_kernels, name)
    values = {"CHANNELS": 3, "PLANES": 4, "TILE_Y": triton_kernels.TILE_Y, "TILE_X": triton_kernels.TILE_X}
    values["RUNS"] = runs
    if name == "collect":
        values["DOT"] = "dot" in kernel
    numbers = {"height": "i32", "width": "i32", "pad": "i32", "pictures_apart": "i32"}
    signature = {n: "constexpr" if n in values else numbers.get(n, "*fp32") for n in function.arg_names}
    made = triton.compile(
        ASTSource(function, signature, values),
        target=GPUTarget(*target),
        options={"num_warps": triton_kernels.WARPS},
    )
    code = made.asm["cubin" if target[0] == "cuda" else "hsaco"]
    assert len(code) > 1000
    assembly = made.asm["ptx" if target[0] == "cuda" else "amdgcn"]
    assert "atom" not in assembly


def test_a_card_that_triton_cannot_serve_gets_the_stack(monkeypatch, caplog):
    from lens_models import blur
    from lens_models.blur import torch_stack

    class Broken:
        @staticmethod
        def gather(*_):
            raise FileNotFoundError("gcc")

        scatter = gather

    image, radius = torch.rand(1, 3, 9, 9), torch.full((1, 9, 9), 2.0)
    engine = blur._triton_engine
    broken = type("Engine", (), {"__call__": lambda self: Broken, "cache_clear": lambda self: None})()
    monkeypatch.setattr(blur, "_triton_engine", broken)
    monkeypatch.setattr(blur, "choose", lambda *_: "gpu")
    monkeypatch.setattr(blur, "_given_up", [])
    assert torch.equal(blur.gather(image, radius), torch_stack.gather(image, radius))
    assert torch.equal(blur.scatter(image, radius), torch_stack.scatter(image, radius))
    assert "pure torch: gcc" in caplog.text
    engine.cache_clear()
    assert engine() is None
    monkeypatch.setattr(blur, "_given_up", [])
    engine.cache_clear()
    assert engine() is not None


def test_it_is_chosen_for_gpus_alone(monkeypatch):
    from lens_models import blur
    from lens_models.shape import ApertureShape

    class Cuda:
        """A picture that says it lies on a GPU."""

        device, dtype, requires_grad = torch.device("cuda"), torch.float32, True

    class Cuda64(Cuda):
        dtype = torch.float64

    radius = torch.zeros(1, 1, 1)
    assert blur.choose(Cuda(), radius) == "gpu"
    assert blur.choose(Cuda64(), radius) == "stack"
    assert blur.choose(Cuda(), radius, ApertureShape("polygon", blades=6)) == "stack"
    assert blur.choose(torch.zeros(1, 3, 1, 1), radius) in ("cpu", "stack")
    monkeypatch.setattr(blur, "_triton_engine", lambda: None)
    assert blur.choose(Cuda(), radius) == "stack"
    with pytest.raises(ValueError, match='"gpu" needs triton'):
        blur.gather(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4), engine="gpu")
