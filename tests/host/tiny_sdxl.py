"""A tiny SDXL with random weights in ComfyUI's own classes: imported by scripts that the host's Python runs.

The first import of such a script, with the repository and a work folder as its arguments: it starts ComfyUI's
modules on the CPU and loads the pack. ComfyUI recognises only known sizes of network when it reads a file.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path

REPO, WORK = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, ".")
sys.argv = ["main.py", "--cpu"]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.latent_formats  # noqa: E402
import comfy.model_management as mm  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.supported_models  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from tiny_network import CONTROL_NETWORK, FIXTURE, NETWORK, as_in_the_fixture  # noqa: E402, F401

spec = importlib.util.spec_from_file_location(
    "pack", REPO / "__init__.py", submodule_search_locations=[str(REPO)]
)
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])

from pack.nodes.generate import sampler as generate  # noqa: E402

IO = load_file(FIXTURE / "io.safetensors")
STEPS = (999, 749, 499, 249)
#: Of SDXL's latents.
SCALE = comfy.latent_formats.SDXL().scale_factor
#: Tensors that the tests see, and what the sampler said last.
KEPT = {}


def tiny_config(dtype=torch.float32):
    config = comfy.supported_models.SDXL(dict(NETWORK))
    config.unet_config |= NETWORK  # the family sets the width of its heads
    config.set_inference_dtype(dtype, None if dtype == torch.float32 else torch.float32)
    return config


def tiny(dtype=torch.float32, **get_model):
    model = as_in_the_fixture(tiny_config(dtype).get_model(get_model, "", device=torch.device("cpu")))
    names = comfy.utils.unet_to_diffusers(NETWORK)
    tensors = load_file(FIXTURE / "diffusion_pytorch_model.safetensors")
    model.diffusion_model.load_state_dict({names[k]: t for k, t in tensors.items()})
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def prompt(**more):
    return [[IO["emb"], {"pooled_output": IO["pooled"], **more}]]


def empty(count=1, height=8, width=8, channels=4):
    return {"samples": torch.zeros(count, channels, height, width), "downscale_ratio_spacial": 8}


def sample(model, latent=None, *, seed=5, steps="4", start_step=0, positive=None, **more):
    result = generate.AIFSamplerNode.execute(
        model, positive or prompt(), latent or empty(), seed, steps, start_step, **more
    )
    KEPT["text"] = result.ui["text"]
    return result.args[0]["samples"]


@contextlib.contextmanager
def replaced(where, name, value):
    old = getattr(where, name)
    setattr(where, name, value)
    try:
        yield
    finally:
        setattr(where, name, old)


class Stored:
    """The fixture's noise in the place of a seed's."""

    def __init__(self, *_):
        self.left = [IO[f"noise{i}"] for i in range(4)]

    def draw(self):
        return self.left.pop(0)


def every_step(model, **more):
    """Clean estimates of all steps from the fixture's noise, through the node itself."""
    estimates = []
    with (
        replaced(generate, "ItemNoise", Stored),
        replaced(generate, "_preview", lambda *_: lambda _i, clean, _x, _n: estimates.append(clean.clone())),
    ):
        latent = sample(model, **more)
    torch.testing.assert_close(latent * SCALE, estimates[-1])
    return torch.stack(estimates)


def relative(ours, theirs):
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()


def refused(call):
    try:
        call()
    except (Exception, mm.InterruptProcessingException) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"
