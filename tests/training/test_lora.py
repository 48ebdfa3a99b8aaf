"""LoRAs on one shared UNet: who is trained when, checkpointing, going on, and the exported file."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from tests.training.tiny_run import batch, config, networks
from tests.training.tiny_training import command, everything, same, sets
from training.__main__ import main
from training.config.run import load_config
from training.distill.batch import Report
from training.distill.schedule import Turn
from training.distill.stages import Stage1, Stage2
from training.networks.build import build
from training.networks.lora import FAKE, GENERATOR, lora_parameters
from training.run.loop import Trainer
from training.run.run_folder import starting_weights

SHALLOW = Turn(step=1, generator=True, shallow=True, k=1, gan=True)
DEEP = dataclasses.replace(SHALLOW, shallow=False)
LORA = ("lora_rank=4", "lora_alpha=2")
T = torch.tensor([499])


def alive(nets):
    """Let both LoRAs say something: as they are made, their upper halves are zero."""
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name in (GENERATOR, FAKE):
            for key, weight in lora_parameters(nets.shared, name):
                if "lora_B" in key:
                    weight.copy_(0.1 * torch.randn(weight.shape, generator=random))
    return nets


def base(nets):
    return {k: v.clone() for k, v in nets.shared.state_dict().items() if ".lora_" not in k}


def teacher(nets, own):
    with torch.no_grad():
        return nets.teacher_eps(own.mean, T, own.prompt, 8.0)


def student(nets, own):
    with torch.no_grad():
        return nets.student_eps(own.mean, T, own.prompt, own.f_number, own.focal_mm)


def test_fresh_loras_change_nothing():
    settings = config(*LORA, "stage=1")
    nets = networks(settings)
    own = batch(DEEP, settings)
    plain = nets.teacher_eps(own.mean, T, own.prompt, 1.0)
    # guidance 1 is uncond + (cond − uncond); float32 rounding of eps of about 1
    assert torch.allclose(student(nets, own), plain, atol=1e-5)
    assert torch.allclose(nets.fake_eps(own.mean, T, own.prompt, False), plain, atol=1e-5)
    assert (student(alive(nets), own) - plain).abs().max() > 1e-3
    fake = nets.fake_eps(own.mean, T, own.prompt, False)
    assert (student(nets, own) - fake).abs().max() > 1e-3


@pytest.mark.parametrize("turn", [DEEP, SHALLOW], ids=["deep", "shallow"])
def test_the_generators_losses_leave_the_fake_score_without_gradients(turn):
    settings = config(*LORA, "checkpointing=true")
    nets = alive(networks(settings))
    stage = Stage2(settings, nets)
    sample = stage._generator_backward(batch(turn, settings), turn, Report(), 1.0)
    assert sample.isfinite().all()
    assert all(p.grad is None for p in nets.fake[0].parameters())
    grads = [p.grad for p in nets.generator.parameters()]
    assert all(g is not None for g in grads)
    assert max(g.abs().max().item() for g in grads) > 1e-8
    assert all(p.grad is None for k, p in nets.shared.named_parameters() if ".lora_" not in k)


def test_training_moves_the_loras_alone(tmp_path):
    # no weight decay: weights shall move by their gradients alone
    still = ("fake_updates=1", "checkpointing=false", "optimiser.weight_decay=0")
    settings = config(*LORA, f"output={tmp_path}", *still)
    nets = networks(settings)
    run, own = Trainer(settings, nets), batch(DEEP, settings)
    before, said = base(nets), teacher(nets, own)
    started = {n: [p.detach().clone() for p in net.parameters()] for n, net in run.trained.items()}
    for step in range(2):
        run.step(step, lambda turn, i: batch(turn, settings))
    assert same(base(nets), before)
    assert torch.equal(teacher(nets, own), said)
    for name, net in run.trained.items():
        moved = [not torch.equal(a, b) for a, b in zip(started[name], net.parameters(), strict=True)]
        assert any(moved), name


@pytest.mark.parametrize("turn", [DEEP, SHALLOW], ids=["deep", "shallow"])
def test_checkpointing_gives_the_same_gradients(turn):
    found = []
    for wanted in ("true", "false"):
        settings = config(*LORA, f"checkpointing={wanted}")
        nets = alive(networks(settings))
        report = Stage2(settings, nets).backward(batch(turn, settings), turn)
        assert report.losses["dmd"] > 0
        every = (*nets.generator.parameters(), *nets.fake[0].parameters())
        found.append(torch.cat([p.grad.flatten() for p in every if p.grad is not None]))
    assert found[0].shape == found[1].shape
    # the same float32 operations, done twice
    assert (found[0] - found[1]).norm() < 1e-5 * found[1].norm()


def test_without_relay_the_last_step_is_the_same():
    """With LoRAs the relay is always taken, also where there is one segment alone."""
    settings = config(*LORA, "stage=1", "relay=false")
    nets = alive(networks(settings))
    losses = Stage1(settings, nets).backward(batch(DEEP, settings), DEEP).losses
    again = alive(networks(config(*LORA, "stage=1")))
    relayed = Stage1(config(*LORA, "stage=1"), again).backward(batch(DEEP, settings), DEEP).losses
    assert losses == relayed
    for one, other in zip(nets.generator.parameters(), again.generator.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A straight run of three steps, and the same one stopped after the first."""
    folder = tmp_path_factory.mktemp("lora")
    deep = sets(folder, 3)[0]
    # large steps, so that the LoRA says something after three
    given = (deep, *LORA, "steps=3", "saving.every=1", "saving.keep_last=3", "optimiser.lr=1e-2")
    assert command(1, folder / "straight", *given) == 0
    assert command(1, folder / "resumed", *given, "steps=1") == 0
    assert command(1, folder / "resumed", *given) == 0
    return folder


def test_a_resumed_run_equals_a_straight_one(trained):
    straight = everything(trained / "straight")
    assert same(straight, everything(trained / "resumed"))
    # the shared weights are the teacher's and in no checkpoint
    assert not any(key.endswith("conv_in.weight") for key in straight)


def test_the_exported_lora_on_the_base_is_the_generator(trained, tmp_path):
    run = trained / "straight"
    assert main(["export", "--run", str(run), "--to", str(tmp_path), "--dtype", "fp32"]) == 0
    (file,) = tmp_path.glob("*lora*.safetensors")
    lora = load_file(file)
    settings = load_config(run / "config.yaml", [f"models.generator={run}"])
    adapted = build(settings, starts=starting_weights(settings.models))
    merged = build(load_config(run / "config.yaml", ["lora_rank=0", "lora_alpha=null"]))
    own = batch(DEEP, settings)
    before = student(merged, own)
    layers = 0
    with torch.no_grad():
        for name, weight in merged.generator.named_parameters():
            place = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            if f"{place}.lora_down.weight" not in lora:
                continue
            down, up = (lora[f"{place}.lora_{side}.weight"] for side in ("down", "up"))
            strength = lora[f"{place}.alpha"] / down.shape[0]
            weight += strength * (up.flatten(1) @ down.flatten(1)).view_as(weight)
            layers += 1
    assert 3 * layers == len(lora)
    told, wanted = student(merged, own), student(adapted, own)
    assert (wanted - before).norm() > 1e-2 * before.norm()
    # float32: the product is added to the weights instead of computed beside them
    assert (told - wanted).norm() < 1e-4 * wanted.norm()
