"""Both stages on tiny networks: where gradients go, what options change, and the loop around them."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from safetensors import safe_open

from lens_models import Camera, Focus, taf_lens
from lens_models.focus.predictor import save_predictor
from lens_models.light import linear_to_srgb, srgb_to_linear
from tests.training.tiny_run import batch, config, networks, perturb, train
from training.distill import losses
from training.distill.batch import NotFinite
from training.distill.schedule import Turn
from training.distill.stages import Stage1, Stage2
from training.networks.build import build
from training.networks.models import frozen, lower_half
from training.run.loop import Trainer

DEEP = Turn(step=0, generator=True, shallow=False, k=1, gan=True)
SHALLOW = Turn(step=1, generator=True, shallow=True, k=1, gan=True)
FAKE_SHALLOW = dataclasses.replace(SHALLOW, generator=False)


def norms(settings, nets):
    found = {}
    for name, net in nets.trainable(settings).items():
        squares = [p.grad.square().sum().item() for p in net.parameters() if p.grad is not None]
        found[name] = math.sqrt(sum(squares)) if squares else None
    return found


def turned(turn, *overrides, samples=(0,)):
    settings = config(*overrides)
    nets = networks(settings)
    stage = (Stage1 if settings.stage == 1 else Stage2)(settings, nets)
    report = stage.backward(batch(turn, settings, samples), turn)
    return norms(settings, nets), report, nets, settings


def test_the_gradient_goes_through_lens_depth_and_autoencoder():
    found, report, nets, _ = turned(SHALLOW)
    assert report.watched["depth_std_m"] > 0.1
    assert report.losses["huber"] > 0
    for name in ("generator", "focus", "fake"):
        assert math.isfinite(found[name])
        assert found[name] > 1e-8, name
    head = nets.focus.scale_head
    assert head.weight.grad.abs().max() > 1e-10
    assert all(p.grad is None for net in (nets.teacher, nets.vae, nets.depth) for p in net.parameters())
    assert all(p.grad is None for p in nets.focus_at_start.parameters())


def test_without_the_huber_term_the_lens_alone_moves_the_focus():
    found, _, nets, _ = turned(SHALLOW, "loss.huber=0")
    assert found["focus"] > 1e-8
    assert nets.focus.scale_head.bias.grad.abs().item() > 1e-10


def test_a_deep_turn_leaves_the_focus_predictor_alone():
    found, report, _, _ = turned(DEEP)
    assert found["focus"] is None
    assert found["generator"] > 1e-8
    assert set(report.losses) == {"dmd", "gan", "fake", "critic"}


def test_a_fake_turn_trains_the_fake_score_alone():
    found, report, _, _ = turned(FAKE_SHALLOW)
    assert found["generator"] is None
    assert found["focus"] is None
    assert found["fake"] > 1e-8
    assert set(report.losses) == {"fake", "critic"}


def test_the_huber_term_on_every_iteration():
    found, report, _, _ = turned(FAKE_SHALLOW, "loss.huber_every=iteration")
    assert report.losses["huber"] > 0
    assert found["focus"] > 1e-8
    assert found["generator"] is None


def test_the_huber_path_into_the_generator_is_cut():
    quiet = ("loss.dmd=0", "loss.gan=0")
    cut, report, _, _ = turned(SHALLOW, *quiet)
    open_, _, _, _ = turned(SHALLOW, *quiet, "loss.huber_to_generator=true")
    assert report.losses["huber"] > 0
    assert not cut["generator"]
    assert open_["generator"] > 0
    # the same gradient for the focus predictor either way
    assert open_["focus"] == pytest.approx(cut["focus"], rel=1e-3)


def test_frozen_parts():
    found, _, nets, _ = turned(SHALLOW, "train_generator=false")
    assert "generator" not in found
    assert all(p.grad is None for p in nets.generator.parameters())
    assert found["focus"] > 1e-8
    found, _, nets, _ = turned(SHALLOW, "train_focus=false")
    assert "focus" not in found
    assert all(p.grad is None for p in nets.focus.parameters())
    assert found["generator"] > 1e-8


def test_the_critic_waits():
    waiting = dataclasses.replace(DEEP, gan=False)
    _, report, nets, _ = turned(waiting, "stage=1")
    assert set(report.losses) == {"dmd", "fake"}
    assert all(p.grad is None for p in nets.fake[0].heads.parameters())


def test_fake_scores_of_their_own():
    for turn, name in ((DEEP, "fake"), (SHALLOW, "fake_shallow")):
        found, _, _, _ = turned(turn, "mu_fake=separate")
        assert found[name] > 1e-8
        assert found[{"fake": "fake_shallow", "fake_shallow": "fake"}[name]] is None


def test_the_fake_score_knows_the_set():
    settings = config("mu_fake=dof_embed")
    nets = networks(settings)
    own = batch(DEEP, settings)
    t = torch.tensor([500])
    with torch.no_grad():
        ask = [nets.fake_eps(own.mean, t, own.prompt, shallow) for shallow in (False, True)]
        assert torch.equal(*ask)  # the vectors start at zero
        nets.fake[0].set_vector.weight[1] = 1.0
        ask = [nets.fake_eps(own.mean, t, own.prompt, shallow) for shallow in (False, True)]
    assert (ask[0] - ask[1]).abs().max() > 1e-4
    _, _, nets, _ = turned(SHALLOW, "mu_fake=dof_embed")
    rows = nets.fake[0].set_vector.weight.grad.abs().amax(dim=1)
    assert rows[0] == 0
    assert rows[1] > 0


def test_a_head_for_each_set():
    _, _, nets, _ = turned(SHALLOW, "critic_heads=per_set")
    deep, shallow = ([p.grad for p in head.parameters()] for head in nets.fake[0].heads)
    assert all(g is None for g in deep)
    assert max(g.abs().max().item() for g in shallow) > 0


def test_the_teachers_own_prompts():
    settings = config("teacher_prompts=suffix", "stage=1")
    nets = networks(settings)
    stage, plain = Stage1(settings, nets), batch(DEEP, settings)
    with pytest.raises(ValueError, match="brings no teacher_text"):
        stage.backward(plain, DEEP)
    told = dataclasses.replace(plain, teacher_text=plain.text + 1, teacher_pooled=plain.pooled)
    same = dataclasses.replace(plain, teacher_text=plain.text, teacher_pooled=plain.pooled)
    dmd = [stage.backward(own, DEEP).losses["dmd"] for own in (told, same)]
    assert abs(dmd[0] - dmd[1]) > 1e-4 * dmd[1]


def test_a_sample_does_not_depend_on_its_batch():
    settings = config("stage=1")
    nets = networks(settings)
    stage = Stage1(settings, nets)
    both = stage.student_input(batch(DEEP, settings, (0, 1)), DEEP)
    second = stage.student_input(batch(DEEP, settings, (1,)), DEEP)
    # float32 network in batches of two sizes
    assert torch.allclose(both[1:], second, atol=1e-4)
    assert (both[0] - both[1]).abs().max() > 0.1


def test_the_first_step_of_the_student_sees_pure_noise():
    settings = config("stage=1")
    stage = Stage1(settings, networks(settings))
    first = dataclasses.replace(DEEP, k=0)
    own = batch(first, settings)
    assert torch.equal(stage.student_input(own, first), stage.noise(own, first, "student 0").double())


def test_the_lower_half_is_the_networks_own():
    settings = config("stage=1")
    nets = networks(settings)
    own = batch(DEEP, settings)
    t, unet = torch.tensor([300]), nets.teacher
    added = {"text_embeds": own.pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
    seen = []
    handle = unet.mid_block.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        unet(own.mean, t, encoder_hidden_states=own.text, added_cond_kwargs=added)
        handle.remove()
        assert torch.equal(lower_half(unet, own.mean, t, own.text, added), seen[0])


def test_the_critic_of_sdxl_has_the_published_size():
    from training.networks.models import CriticHead

    with torch.device("meta"):
        head = CriticHead(1280, 32)
    assert sum(p.numel() for p in head.parameters()) / 1e6 == pytest.approx(104.9, abs=0.05)


def test_frozen_gives_the_weights_back():
    nets = networks(config("stage=1"))
    before = [p.requires_grad for p in nets.fake[0].parameters()]
    with frozen(*nets.fake):
        assert not any(p.requires_grad for p in nets.fake[0].parameters())
    assert any(before)
    assert [p.requires_grad for p in nets.fake[0].parameters()] == before


def test_the_loop_trains_all_three(tmp_path):
    settings = config(f"output={tmp_path}", "steps=3", "fake_updates=1", "accumulation=2")
    run, seen = Trainer(settings, networks(settings)), []
    before = {n: [p.detach().clone() for p in net.parameters()] for n, net in run.trained.items()}
    for step in range(2):
        seen.append(run.step(step, lambda turn, i: batch(turn, settings, place=i)))
    assert [s.turn.shallow for s in seen] == [False, True]
    assert set(seen[0].norms) == {"fake", "generator"}
    assert set(seen[1].norms) == {"fake", "generator", "focus"}
    for name, net in run.trained.items():
        moved = [(a - b).abs().max().item() for a, b in zip(before[name], net.parameters(), strict=True)]
        # Adam's first step is the rate for every weight that has a gradient
        assert max(moved) == pytest.approx(1e-4 * (2 if name != "focus" else 1), rel=0.3), name


def test_two_halves_are_one_batch():
    """Accumulation over two batches gives the gradients of one batch of both samples."""
    found = []
    for cut in (1, 2):
        settings = config("stage=1", "checkpointing=false")
        nets = networks(settings, double=True)
        stage = Stage1(settings, nets)
        parts = [(0, 1)] if cut == 1 else [(0,), (1,)]
        for samples in parts:
            stage.backward(batch(DEEP, settings, samples), DEEP, 1.0 / cut)
        found.append(torch.cat([p.grad.flatten() for p in nets.generator.parameters() if p.grad is not None]))
    # float64, sums in another order
    assert torch.allclose(*found, rtol=1e-8, atol=1e-12)


def test_clipping_together_or_apart(tmp_path):
    settings = config(f"output={tmp_path}", "optimiser.clip=1e-9", "optimiser.clip_separately=false")
    run = Trainer(settings, networks(settings))
    run.stage.backward(batch(SHALLOW, settings), SHALLOW)
    alone = norms(settings, run.networks)
    found = run._clipped()
    both = math.hypot(alone["generator"], alone["focus"])
    assert found["generator"] == found["focus"] == pytest.approx(both, rel=1e-4)
    after = norms(settings, run.networks)
    assert math.hypot(after["generator"], after["focus"]) == pytest.approx(1e-9, rel=1e-2)
    assert after["fake"] == pytest.approx(1e-9, rel=1e-2)


def test_a_batch_of_another_size_is_refused(tmp_path):
    settings = config(f"output={tmp_path}", "batch=2", "stage=1")
    with pytest.raises(ValueError, match="says 2 samples per batch and this one has 1"):
        train(settings, lambda turn, i: batch(turn, settings), networks(settings))


def test_a_loss_that_is_not_finite_stops_with_the_batch_saved(tmp_path):
    settings = config(f"output={tmp_path}", "stage=1", "steps=2")

    def source(turn, i):
        found = batch(turn, settings)
        return dataclasses.replace(found, mean=found.mean / 0.0) if turn.step else found

    done = []
    with pytest.raises(NotFinite, match=r"Step 1 stopped: The loss critic is not finite: 1 of 1 values"):
        train(settings, source, networks(settings), done.append)
    assert len(done) == 1
    (path,) = tmp_path.glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) >= {"mean", "text", "samples", "f_number"}
        assert not file.get_tensor("mean").isfinite().any()
        assert file.metadata()["step"] == "1"


def test_a_generator_that_breaks_stops_too(tmp_path):
    settings = config(f"output={tmp_path}", "stage=1", "steps=1")
    nets = networks(settings)
    with torch.no_grad():
        nets.generator.conv_out.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(NotFinite, match="The generator's latent is not finite"):
        train(settings, lambda turn, i: batch(turn, settings), nets)


def test_a_focus_predictor_that_breaks_stops_too():
    settings = config()
    nets = networks(settings)
    with torch.no_grad():
        nets.focus.scale_head.bias.fill_(torch.nan)
    with pytest.raises(NotFinite, match=r"The focus cannot be used: focus scale is not a number \(NaN\)"):
        Stage2(settings, nets).backward(batch(SHALLOW, settings), SHALLOW)


def test_networks_come_from_files(tmp_path):
    made = networks(config())
    made.teacher.save_pretrained(tmp_path / "unet")
    made.vae.save_pretrained(tmp_path / "vae")
    torch.save(made.depth.state_dict(), tmp_path / "depth.pth")
    save_predictor(tmp_path / "focus.safetensors", made.focus)
    paths = {
        "teacher": tmp_path / "unet",
        "vae": tmp_path / "vae",
        "text": tmp_path / "not read by build",
        "depth": tmp_path / "depth.pth",
        "focus": tmp_path / "focus.safetensors",
    }
    settings = config("models.source=files", "seed=5", *(f"models.{k}={v}" for k, v in paths.items()))
    found = build(settings)
    for name in ("generator", "teacher", "vae", "depth", "focus"):
        there, here = getattr(made, name).state_dict(), getattr(found, name).state_dict()
        assert there.keys() == here.keys()
        assert all(torch.equal(value, here[key]) for key, value in there.items()), name
    trained = found.trainable(settings)
    assert all(p.requires_grad for p in trained["generator"].parameters())
    assert not any(p.requires_grad for p in found.teacher.parameters())
    assert Stage2(settings, found).backward(batch(SHALLOW, settings), SHALLOW).losses["huber"] == 0.0


def test_a_folder_that_is_no_autoencoder(tmp_path):
    networks(config("stage=1")).teacher.save_pretrained(tmp_path / "unet")
    paths = (
        f"models.teacher={tmp_path / 'unet'}",
        f"models.vae={tmp_path / 'nothing'}",
        f"models.text={tmp_path}",
    )
    with pytest.raises(ValueError, match="is not the folder of an autoencoder"):
        build(config("models.source=files", "stage=1", *paths))


def test_the_same_run_twice_is_the_same(tmp_path):
    found = []
    for _ in range(2):
        settings = config(f"output={tmp_path}", "stage=1", "steps=2")
        torch.manual_seed(len(found))
        run = train(settings, lambda turn, i, s=settings: batch(turn, s))
        found.append(torch.cat([p.detach().flatten() for p in run.networks.generator.parameters()]))
    assert torch.equal(*found)


def test_a_planted_focus_is_found():
    """Photographs of one focus, and nothing else, pull the predictor to it through lens and autoencoder."""
    settings = config()
    nets = networks(settings)
    perturb(nets.focus, 0.4)
    stage, camera = Stage2(settings, nets), Camera(2.0, 85.0, 36.0)
    srgb = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    depth = torch.linspace(1.0, 6.0, 64).expand(1, 64, 64)
    planted = Focus(2.5)
    with torch.no_grad():
        photo = taf_lens(srgb_to_linear(srgb), depth, planted, camera, max_radius_px=8.0)
        real = nets.encode(linear_to_srgb(photo), None)
    adam = torch.optim.Adam([p for p in nets.focus.parameters() if p.requires_grad], lr=3e-3)
    distances, focuses = [], []
    for _ in range(60):
        blurred = stage.through_the_lens(srgb, depth, stage.focused(srgb, depth), camera)
        latent = nets.encode(blurred, None)
        # a teacher that knows the photograph, and a fake score that knows the generator
        loss = losses.dmd_loss(latent, losses.dmd_gradient(latent, real, latent))
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            focuses.append(nets.focus(srgb, depth)[0].item())
        distances.append((latent - real).abs().mean().item())
    assert abs(focuses[0] - 2.5) > 0.9
    # the step's size does not shrink near the goal, so it sways around it
    assert sum(focuses[-10:]) / 10 == pytest.approx(2.5, abs=0.25)
    assert sum(distances[-10:]) < 0.4 * sum(distances[:10])
