"""Checks of the generator's files and of the camera's conditioning; run by inside_generate.py."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file, save_file
from tiny_sdxl import (
    FIXTURE,
    IO,
    KEPT,
    WORK,
    as_in_the_fixture,
    empty,
    every_step,
    prompt,
    refused,
    relative,
    replaced,
    sample,
    tiny,
    tiny_config,
)

# isort: split
import comfy.lora
import comfy.model_detection
import comfy.sample
import comfy.utils
from pack.lens_models import Camera
from pack.lens_models.generator.card import GeneratorCard
from pack.lens_models.generator.exif_embedding import load_exif_embedding
from pack.nodes.generate import conditioning, load, sdxl


def lora():
    model = tiny()
    before = sample(model)
    g = torch.Generator().manual_seed(0)
    tensors = {}
    for name in ("down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", "mid_block_resnets_0_conv1"):
        key = f"lora_unet_{name}"
        target = comfy.lora.model_lora_keys_unet(model.model, {})[key]
        weight = comfy.utils.get_attr(model.model, target)
        down, up = (2, *weight.shape[1:]), (weight.shape[0], 2, *(1 for _ in weight.shape[2:]))
        tensors |= {
            f"{key}.lora_down.weight": torch.randn(down, generator=g) / 4,
            f"{key}.lora_up.weight": torch.randn(up, generator=g) / 4,
            f"{key}.alpha": torch.tensor(2.0),
        }
    save_file(tensors, WORK / "loras" / "tiny_dmd2_4step_lora.safetensors")
    loaded = load.Loaded(model, None, None, [])
    with replaced(load, "_base", lambda *_, **__: loaded):
        made = load.LoadAIFGeneratorNode.execute("loras/tiny_dmd2_4step_lora.safetensors", "base")
    with_it = sample(made.args[0])
    save_file({"lora_te_x.alpha": torch.ones(1)}, WORK / "loras" / "other.safetensors")
    with replaced(load, "_base", lambda *_, **__: loaded):
        other = refused(lambda: load.LoadAIFGeneratorNode.execute("loras/other.safetensors", "base"))
    return {
        "changed": relative(with_it, before), "restored": torch.equal(sample(model), before), "other": other,
        "text": made.ui["text"], "no base": refused(
            lambda: load.LoadAIFGeneratorNode.execute("loras/other.safetensors", "none")),
        "attached": sdxl.attached(made.args[0].clone()).card.timesteps,
    }  # fmt: skip


def keys():
    shapes = json.loads((WORK / "sdxl_keys.json").read_text())
    tensors = {k: torch.empty(s, device="meta", dtype=torch.float16) for k, s in shapes.items()}
    config = comfy.model_detection.model_config_from_diffusers_unet(tensors)
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    renamed = {names[k]: t for k, t in tensors.items() if k in names}
    config.set_inference_dtype(torch.float16, None)
    model = config.get_model(renamed, "", device=torch.device("meta")).diffusion_model
    missing, extra = model.load_state_dict(renamed, strict=False, assign=True)
    return {
        "family": type(config).__name__, "in the file": len(tensors), "mapped": len(renamed),
        "missing": len(missing), "unexpected": len(extra), "in ComfyUI": len(model.state_dict()),
    }  # fmt: skip


def exif():
    found = {}
    for name in ("zero", "trained"):
        model, head = tiny(), load_exif_embedding(WORK / f"{name}.exif.safetensors")
        model.set_attachments(sdxl.ATTACHMENT, sdxl.Generator(GeneratorCard(name), head))
        tell = conditioning.CameraConditioningNode.execute
        told = tell(Camera(2.8, 50.0), "EXIF embedding", "", model).args[0]
        plain, with_it = every_step(model), every_step(told)
        found[name] = {"equal": torch.equal(plain, with_it), "changed": relative(with_it[-1], plain[-1])}
        found[name]["untouched"] = torch.equal(every_step(model), plain)
    KEPT["exif"] = with_it
    once = tell(Camera(16.0, 24.0), "EXIF embedding", "", model).args[0]
    twice = tell(Camera(2.8, 50.0), "EXIF embedding", "", once)
    found["told twice"] = torch.equal(every_step(twice.args[0]), with_it)
    numbers = torch.tensor([1.8, 4.0, 8.0, 16.0])
    sweep = tell(Camera(numbers, 50.0), "EXIF embedding", "", model).args[0]
    many = sample(sweep, empty(4), seed=7)
    third = tell(Camera(8.0, 50.0), "EXIF embedding", "", model).args[0]
    found["third of a sweep"] = relative(sample(third, seed=9), many[2:3])
    # another sampler runs CFG: every row is told, conditional or not
    cfg = comfy.sample.sample(
        sweep, torch.randn(4, 4, 8, 8), 2, 3.0, "euler", "simple", prompt(), prompt(), torch.zeros(4, 4, 8, 8)
    )
    found["cfg"] = cfg.isfinite().all().item()
    found["two for three"] = refused(lambda: sample(sweep, empty(3)))
    found["no head"] = refused(lambda: tell(Camera(2.8, 50.0), "EXIF embedding", "", tiny()))
    found["no model"] = refused(lambda: tell(Camera(2.8, 50.0), "EXIF embedding", "", None))
    wide = load_exif_embedding(WORK / "wide.exif.safetensors")
    model.set_attachments(sdxl.ATTACHMENT, sdxl.Generator(GeneratorCard("wide"), wide))
    found["other width"] = refused(lambda: tell(Camera(2.8, 50.0), "EXIF embedding", "", model))
    for how in ("deep / shallow words", "EXIF as text"):
        told = [tell(Camera(n, 50.0), how, "a dog, ", None).args for n in (9.0, 10.0)]
        found[how] = [text for _, text in told]
        found[f"{how}, sweep"] = refused(lambda how=how: tell(Camera(numbers, 50.0), how, "", None))
    return found


def loader():
    """Load AIF Generator reads real files; only the recognition of the tiny size is helped."""
    tensors = load_file(FIXTURE / "diffusion_pytorch_model.safetensors")
    head = load_file(WORK / "trained.exif.safetensors")
    header = json.loads((WORK / "header.json").read_text())
    folder, execute = WORK / "diffusion_models", load.LoadAIFGeneratorNode.execute
    save_file({**tensors, **head}, folder / "dof_sdxl_4step_fp32.safetensors", metadata=header)
    save_file(tensors, folder / "dmd2_sdxl_1step_unet.safetensors")
    save_file(head, folder / "dmd2_sdxl_1step_unet.exif.safetensors")
    save_file(tensors, folder / "velocity.safetensors", metadata={**header, "prediction": "v"})
    (folder / "half.safetensors").write_bytes((folder / "velocity.safetensors").read_bytes()[:100_000])
    save_file({"a": torch.ones(1)}, folder / "other.safetensors")
    torch.save({"a": 1}, folder / "other.pt")
    (folder / "noise.pt").write_bytes(b"not a model at all")
    found = {"files": load._files()}

    def recognised(sd):
        return tiny_config() if "conv_in.weight" in sd else None

    with replaced(comfy.model_detection, "model_config_from_diffusers_unet", recognised):
        ours = execute("diffusion_models/dof_sdxl_4step_fp32.safetensors", "none")
        public = execute("diffusion_models/dmd2_sdxl_1step_unet.safetensors", "none")
        for name in ("velocity", "half", "other"):
            found[name] = refused(lambda name=name: execute(f"diffusion_models/{name}.safetensors", "none"))
        for name in ("other", "noise"):
            found[f"{name}.pt"] = refused(lambda name=name: execute(f"diffusion_models/{name}.pt", "none"))
    found["no file"] = refused(lambda: execute("no model file yet", "none"))
    found["ours"], found["public"] = ours.ui["text"], public.ui["text"]
    found["heads"] = [sdxl.attached(o.args[0]).exif is not None for o in (ours, public)]
    found["rest"] = [o.args[1:] for o in (ours, public)]
    as_in_the_fixture(ours.args[0].model)
    found["same pictures"] = relative(every_step(ours.args[0])[-1], IO["x0_249"])
    return found
