"""Runs in the host's Python: the generator's nodes on a tiny SDXL, in ComfyUI's own sampling code.

`python inside_generate.py REPO WORK` answers with one line of JSON: for every check what it found, or its
traceback.
"""

from __future__ import annotations

import json
import traceback

import torch
from safetensors.torch import save_file
from tiny_sdxl import (
    CONTROL_NETWORK,
    IO,
    KEPT,
    NETWORK,
    SCALE,
    STEPS,
    WORK,
    empty,
    every_step,
    generate,
    prompt,
    refused,
    relative,
    replaced,
    sample,
    tiny,
    tiny_config,
)

# isort: split
import comfy.cldm.cldm
import comfy.controlnet
import comfy.k_diffusion.sampling
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.sample
import comfy.sd
import comfy.supported_models
import comfy.utils
import comfy_extras.nodes_model_advanced as advanced
import folder_paths
from comfy.taesd.taesd import TAESD
from inside_generate_files import exif, keys, loader, lora
from pack.lens_models.generator.card import GeneratorCard
from pack.nodes.camera import camera
from pack.nodes.depth import given as depth
from pack.nodes.focus import distance as focus
from pack.nodes.generate import sdxl
from pack.nodes.lens import lenses as lens


def parity():
    seen = KEPT["fp32"] = every_step(tiny())
    return {t: relative(seen[i], IO[f"x0_{t}"]) for i, t in enumerate(STEPS)}


def peers():
    """What ComfyUI's own sampler makes of the same noise with schedules and samplers that artists use."""
    found, empty_latent = {}, empty()["samples"]
    for sampler, scheduler in (("lcm", "simple"), ("lcm", "karras"), ("lcm", "normal"), ("euler", "simple")):
        left = [IO[f"noise{i}"] for i in (1, 2, 3)]

        def stored(_x, seed=None, left=left):
            return lambda *_: left.pop(0)

        with replaced(comfy.k_diffusion.sampling, "default_noise_sampler", stored):
            made = comfy.sample.sample(
                tiny(), IO["noise0"], 4, 1.0, sampler, scheduler, prompt(), prompt(), empty_latent, seed=1
            )
        found[f"{sampler} {scheduler}"] = relative(made * SCALE, IO["x0_249"])
    return found


def precisions():
    for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        model = tiny(dtype)
        assert model.model.diffusion_model.out[2].weight.dtype == dtype
        KEPT[name] = every_step(model)
    return {name: relative(KEPT[name][-1], IO["x0_249"]) for name in ("fp16", "bf16")}


def batch():
    model = tiny()
    many = sample(model, empty(4), seed=7)
    text = KEPT["text"]
    alone = torch.cat([sample(model, empty(1), seed=7 + i) for i in range(4)])
    picked = sample(model, {**empty(2), "batch_index": [1, 3]}, seed=7)
    again = sample(model, empty(4), seed=7)
    # the host's first noise for the same seed is ours
    same_noise = torch.equal(
        comfy.sample.prepare_noise(empty()["samples"], 9), generate.ItemNoise(9, (1, 4, 8, 8)).draw()
    )
    return {
        "alone": relative(alone, many), "alone_equal": torch.equal(alone, many),
        "picked": relative(picked, many[[1, 3]]), "again_equal": torch.equal(again, many),
        "items_differ": relative(many[1], many[0]), "same_noise": same_noise, "text": text,
        "wrapped": torch.isfinite(sample(model, empty(2), seed=2**64 - 1)).all().item(),
    }  # fmt: skip


def schedules():
    found = {}
    for steps in ("1", "2", "4", "8"):
        seen = []
        model = tiny()
        model.set_model_unet_function_wrapper(
            lambda run, a, seen=seen: (
                seen.append(a["timestep"].item()) or run(a["input"], a["timestep"], **a["c"])
            )
        )
        sample(model, steps=steps)
        table = model.get_model_object("model_sampling")
        found[steps] = [int(table.timestep(torch.tensor(s))) for s in seen]
    one = tiny()
    one.set_attachments(sdxl.ATTACHMENT, sdxl.Generator(GeneratorCard("dmd2_1step", timesteps=(399,)), None))
    inputs = []
    one.set_model_unet_function_wrapper(
        lambda run, a: inputs.append(a) or run(a["input"], a["timestep"], **a["c"])
    )
    sample(one, steps="1")
    sigma = inputs[0]["timestep"].item()
    first = generate.ItemNoise(5, (1, 4, 8, 8)).draw()
    found["one-step student"] = int(table.timestep(torch.tensor(sigma)))
    found["its input over noise"] = (inputs[0]["input"] / first).mean().item() / (1 + sigma**2) ** 0.5
    sample(one, steps="4")
    found["said"] = KEPT["text"]
    return found


def pictures_in():
    """A mask, a later start, and a latent that is not used."""
    model = tiny()
    picture = {"samples": torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))}
    left = torch.zeros(1, 64, 64)
    left[:, :, :32] = 1.0
    masked = sample(model, picture, mask=left)
    own = sample(model, {**picture, "noise_mask": left})
    later = [sample(model, picture, start_step=k) for k in range(4)]
    KEPT["later"] = torch.stack([later[2] * SCALE, later[3] * SCALE])
    KEPT["picture"] = picture["samples"] * SCALE
    sample(model, empty(), start_step=2)
    return {
        "kept": relative(masked[..., 5:], picture["samples"][..., 5:]),
        "made": relative(masked[..., :3], picture["samples"][..., :3]),
        "own mask": torch.equal(masked, own),
        "whole": torch.equal(later[0], sample(model)),
        "later": [relative(a, later[0]) for a in later],
        "said": (sample(model, empty(), start_step=2), KEPT["text"])[1],
        "odd size": (sample(model, empty(1, 9, 13)).shape == (1, 4, 9, 13), KEPT["text"]),
    }


def control():
    model = tiny()
    plain = sample(model)
    torch.manual_seed(0)
    inner = comfy.cldm.cldm.ControlNet(
        **CONTROL_NETWORK, hint_channels=3, dtype=torch.float32, operations=comfy.ops.disable_weight_init
    )
    for parameter in inner.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    net = comfy.controlnet.ControlNet(inner, load_device=torch.device("cpu"))
    net.set_cond_hint(torch.rand(1, 3, 64, 64), 1.0, (0.0, 1.0))
    held = sample(model, positive=prompt(control=net, control_apply_to_uncond=True))
    return {
        "changed": relative(held, plain), "finite": held.isfinite().all().item(),
        "restored": torch.equal(sample(model), plain),
    }  # fmt: skip


def to_bokeh():
    """From noise to a sweep of apertures: every node of the way, with a random decoder of ComfyUI's."""
    torch.manual_seed(0)
    made = generate.AIFSamplerNode.execute(tiny(), prompt(), empty(1, 16, 16), 3, "4", 0).args[0]
    # ComfyUI's layers are born unset, and a decoder of torch's usual weights gives flat grey
    decoder = TAESD()
    for parameter in decoder.taesd_decoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
        elif parameter.ndim == 1:
            torch.nn.init.zeros_(parameter)
    image = comfy.sd.VAE(sd=decoder.state_dict()).decode(made["samples"] / made["samples"].std())
    ramp = torch.linspace(0, 1, 128).expand(1, 128, 128)[..., None].expand(-1, -1, -1, 3)
    metres = depth.DepthFromImageNode.execute(ramp, "near is bright", 1.0, 8.0, "inverse depth").args[0]
    near = focus.FocusDistanceNode.execute(2.0, 1.0).args[0]
    one = camera.CameraNode.execute(
        "free", 2.8, 85.0, "Full frame 36 × 24 mm", 36.0, 24.0, "crop to the picture"
    ).args[0]
    sweep = camera.ApertureSweepNode.execute(one, "list", 1.8, 22.0, "1 stop", "1.8, 4, 16").args[0]
    bokeh = lens.TAFLensNode.execute(image, metres, near, sweep, 64, "bilinear").args[0]
    sharpness = (bokeh[:, :, 1:] - bokeh[:, :, :-1]).abs().mean(dim=(1, 2, 3)).tolist()
    return {"picture": list(image.shape), "sweep": list(bokeh.shape), "sharpness": sharpness}


def shown():
    """Progress and previews, an interruption in the middle, no memory, and a clean run after each."""
    seen, model = [], tiny()
    clean = sample(model)

    def hook(value, total, preview, node_id=None):
        seen.append((value, total, preview[1].size if preview else None))
        mm.throw_exception_if_processing_interrupted()

    def stop(value, total, preview, node_id=None):
        if value == 2:
            mm.interrupt_current_processing()
        mm.throw_exception_if_processing_interrupted()

    def full(emb, _channels, _options):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    comfy.utils.set_progress_bar_global_hook(hook)
    sample(model)
    comfy.utils.set_progress_bar_global_hook(stop)
    interrupted = refused(lambda: sample(model))
    comfy.utils.set_progress_bar_global_hook(None)
    after_interruption = torch.equal(sample(model), clean)
    short = model.clone()
    short.set_model_emb_patch(full)
    memory = refused(lambda: sample(short, empty(4)))
    return {
        "steps": seen, "interrupted": interrupted, "clean": after_interruption, "memory": memory,
        "clean after memory": torch.equal(sample(model), clean),
    }  # fmt: skip


def bad():
    model = tiny()
    cases = {}
    for sampling in ("v_prediction", "lcm", "x0", "img_to_img_flow"):
        (other,) = advanced.ModelSamplingDiscrete().patch(model, sampling, False)
        cases[sampling] = lambda other=other: sample(other)
    cases["v checkpoint"] = lambda: sample(tiny(v_pred=torch.tensor([])))
    flow = model.clone()
    flow.add_object_patch(
        "model_sampling", comfy.model_base.model_sampling(tiny_config(), comfy.model_base.ModelType.FLOW)
    )
    cases["flow"] = lambda: sample(flow)
    older = comfy.supported_models.SD15({**NETWORK, "num_classes": None})
    sd15 = comfy.model_patcher.ModelPatcher(
        older.get_model({}, "", device=torch.device("cpu")), torch.device("cpu"), torch.device("cpu")
    )
    cases["family"] = lambda: sample(sd15)
    cases["no model"] = lambda: sample(None)
    cases["16 channels"] = lambda: sample(model, empty(channels=16))
    cases["video"] = lambda: sample(model, {"samples": torch.zeros(1, 4, 2, 8, 8)})
    cases["small"] = lambda: sample(model, empty(1, 7, 8))
    cases["none"] = lambda: sample(model, empty(0))
    cases["no samples"] = lambda: sample(model, {"x": 1})
    cases["no pooled"] = lambda: sample(model, positive=[[IO["emb"], {}]])
    cases["pair"] = lambda: sample(model, positive=(prompt(), prompt()))
    cases["pair in a list"] = lambda: sample(model, positive=[prompt(), prompt()])
    cases["empty prompt"] = lambda: generate.AIFSamplerNode.execute(model, [], empty(), 0, "4", 0)
    cases["other clip"] = lambda: sample(
        model, positive=[[torch.zeros(1, 77, 768), {"pooled_output": IO["pooled"]}]]
    )
    cases["other pooled"] = lambda: sample(
        model, positive=[[IO["emb"], {"pooled_output": torch.zeros(1, 1280)}]]
    )
    cases["late"] = lambda: sample(model, start_step=4)
    cases["masks"] = lambda: sample(model, empty(3), mask=torch.ones(2, 64, 64))
    found = {name: refused(call) for name, call in cases.items()}
    (zero,) = advanced.ModelSamplingDiscrete().patch(model, "eps", True)
    sample(zero)
    found["zero snr"] = KEPT["text"]
    return found


CHECKS = (
    parity,
    peers,
    precisions,
    batch,
    schedules,
    pictures_in,
    control,
    to_bokeh,
    shown,
    bad,
    exif,
    keys,
    loader,
    lora,
)
for folder in ("diffusion_models", "loras", "checkpoints"):
    (WORK / folder).mkdir(exist_ok=True)
    folder_paths.folder_names_and_paths[folder] = ([str(WORK / folder)], folder_paths.supported_pt_extensions)
answers = {}
for check in CHECKS:
    try:
        with torch.inference_mode():
            answers[check.__name__] = check()
    except Exception:
        answers[check.__name__] = traceback.format_exc()
kept = {name: value.contiguous() for name, value in KEPT.items() if isinstance(value, torch.Tensor)}
save_file(kept, WORK / "seen.safetensors")
print(json.dumps(answers, default=str))
