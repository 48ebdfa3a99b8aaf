"""The generator outside ComfyUI: schedule, noise, the diffusers twin, the EXIF head, what a file says."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lens_models.generator import camera_words, schedule
from lens_models.generator.card import export_metadata, read_card
from lens_models.generator.exif_embedding import (
    INPUTS,
    ExifEmbedding,
    camera_conditioned,
    head_tensors,
    load_exif_embedding,
    sinusoid,
)
from lens_models.generator.schedule import ItemNoise, timesteps
from training.networks.sdxl_unet import build_unet, generate, load_unet, time_ids

REPO = Path(__file__).parents[1]
FIXTURE = Path(__file__).parent / "fixtures" / "dmd2"
STEPS = (999, 749, 499, 249)


@pytest.fixture(scope="module")
def upstream():
    """Noise, prompt and the clean estimates of the published loop at toy size with random weights."""
    return load_file(FIXTURE / "io.safetensors")


@pytest.fixture(scope="module")
def unet():
    return load_unet(FIXTURE)


def run(unet, upstream, **more):
    seen = []
    noises = [upstream[f"noise{i}"] for i in range(4)]
    with torch.no_grad():
        generate(
            unet, noises, upstream["emb"], upstream["pooled"], on_step=lambda _i, x: seen.append(x), **more
        )
    return seen


def relative(ours, theirs):
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()


# ------------------------------------------------------------------------------------------- schedule


def test_schedules():
    assert timesteps(4) == STEPS == schedule.FOUR_STEPS
    assert timesteps(1) == (999,)
    assert timesteps(2) == (999, 499)
    assert timesteps(8) == (999, 874, 749, 624, 499, 374, 249, 124)
    for bad in (0, 3, 7):
        with pytest.raises(ValueError, match=f"no schedule of {bad} steps"):
            timesteps(bad)


def test_noise_table():
    sigmas = schedule.sigma(schedule.alphas_bar()[list(STEPS)]).tolist()
    assert sigmas == pytest.approx([14.614641, 4.081729, 1.612886, 0.693205], rel=1e-6)


def test_diffusing_and_estimating_undo_each_other():
    g = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(1, 4, 5, 6, dtype=torch.float64, generator=g) for _ in range(2))
    for alpha_bar in schedule.alphas_bar()[[0, 500, 999]]:
        noisy = schedule.diffused(clean, noise, alpha_bar)
        torch.testing.assert_close(schedule.clean_estimate(noisy, noise, alpha_bar), clean)


def test_noise_belongs_to_the_item():
    batch, alone = ItemNoise(7, (3, 4, 8, 8)), ItemNoise(9, (1, 4, 8, 8))
    picked = ItemNoise(7, (2, 4, 8, 8), [0, 2])
    state = torch.get_rng_state()
    for _ in range(4):
        many = batch.draw()
        assert torch.equal(many[2:], alone.draw())
        assert torch.equal(many[[0, 2]], picked.draw())
        assert not torch.equal(many[0], many[1])
    assert torch.equal(state, torch.get_rng_state())
    assert ItemNoise(2**64 - 1, (2, 4, 8, 8)).draw().isfinite().all()
    with pytest.raises(ValueError, match="2 latents but 3 batch indices"):
        ItemNoise(0, (2, 4, 8, 8), [0, 1, 2])


# --------------------------------------------------------------------------------------- diffusers twin


def test_every_step_is_the_published_one(unet, upstream):
    # float32 rounding of a network of 328 tensors; reached: 4.4e-7
    for ours, t in zip(run(unet, upstream), STEPS, strict=True):
        assert relative(ours, upstream[f"x0_{t}"]) <= 1e-6


def test_a_later_start_goes_on_from_the_latent(unet, upstream):
    """From the clean estimate of step 1, with the noise of step 2, the rest is the same."""
    noises = [upstream["noise2"], upstream["noise3"]]
    with torch.no_grad():
        ours = generate(
            unet, noises, upstream["emb"], upstream["pooled"], start_step=2, latent=upstream["x0_749"]
        )
    assert relative(ours, upstream["x0_249"]) <= 1e-6
    with pytest.raises(ValueError, match="Step 2 starts from a latent"):
        generate(unet, noises, upstream["emb"], upstream["pooled"], start_step=2)


def test_gradients_reach_the_weights(unet, upstream):
    noises = [upstream[f"noise{i}"] for i in range(4)]
    generate(unet, noises, upstream["emb"], upstream["pooled"]).square().mean().backward()
    gradients = [p.grad.norm().item() for p in unet.parameters()]
    unet.zero_grad(set_to_none=True)
    assert all(map(math.isfinite, gradients))
    assert max(gradients) > 0


def test_sizes_are_those_of_the_picture():
    assert time_ids(torch.zeros(2, 4, 16, 24)).tolist() == [[128, 192, 0, 0, 128, 192]] * 2


def test_published_size():
    with torch.device("meta"):
        network = build_unet()
    assert len(network.state_dict()) == 1680
    assert sum(p.numel() for p in network.parameters()) == 2_567_463_684


def test_files_that_are_not_a_unet(tmp_path):
    with pytest.raises(ValueError, match="needs config"):
        load_unet(tmp_path)
    (tmp_path / "config.json").write_bytes((FIXTURE / "config.json").read_bytes())
    save_file({"a": torch.ones(1)}, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match="328 of 328 tensors are missing and 1 are not known"):
        load_unet(tmp_path)


def test_diffusers_is_imported_late_and_its_absence_is_a_sentence():
    code = (
        "import sys; import training.networks.sdxl_unet as twin; assert 'diffusers' not in "
        "sys.modules\n"
        "sys.modules['diffusers'] = None\n"
        "try: twin.build_unet()\n"
        "except ImportError as error: print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert "pip install diffusers" in ran.stdout


# -------------------------------------------------------------------------------------------- EXIF head


def trained(width=128):
    torch.manual_seed(0)
    head = ExifEmbedding(width)
    torch.nn.init.normal_(head.linear_2.weight, std=0.1)
    return head


def test_sines_and_cosines_are_those_of_diffusers():
    from diffusers.models.embeddings import get_timestep_embedding

    value = torch.tensor([0.3, 1.0, 4.5])
    theirs = get_timestep_embedding(value, 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(sinusoid(value, 256), theirs, rtol=0, atol=1e-6)


def test_a_fresh_head_changes_nothing(unet, upstream):
    plain = run(unet, upstream)
    with camera_conditioned(unet, ExifEmbedding(128), 2.8, 50.0):
        told = run(unet, upstream)
    assert torch.equal(plain[-1], told[-1])
    with camera_conditioned(unet, trained(), 2.8, 50.0):
        assert relative(run(unet, upstream)[-1], plain[-1]) > 1e-3
    assert torch.equal(run(unet, upstream)[-1], plain[-1])


def test_a_batch_of_cameras():
    head = trained()
    numbers = torch.tensor([1.8, 4.0, 16.0])
    many = head(numbers, 50.0)
    assert many.shape == (3, 128)
    torch.testing.assert_close(many[1:2], head(4.0, torch.tensor([50.0])))
    assert (many[0] - many[2]).norm() > 1e-2


def test_gradients_reach_the_head(unet, upstream):
    head = ExifEmbedding(128)
    with camera_conditioned(unet, head, 2.8, 50.0):
        noises = [upstream[f"noise{i}"] for i in range(4)]
        generate(unet, noises, upstream["emb"], upstream["pooled"]).square().mean().backward()
    unet.zero_grad(set_to_none=True)
    assert head.linear_2.weight.grad.norm() > 0


def test_more_cameras_than_pictures(unet, upstream):
    with (
        camera_conditioned(unet, trained(), torch.tensor([2.0, 4.0]), 50.0),
        pytest.raises(ValueError, match="2 cameras do not go with 1 pictures"),
    ):
        run(unet, upstream)


def test_a_head_in_its_own_file_and_among_others(tmp_path):
    head = trained()
    save_file(head_tensors(head), tmp_path / "own.safetensors", metadata={"exif_inputs": INPUTS})
    save_file({"conv_in.weight": torch.ones(2), **head_tensors(head)}, tmp_path / "both.safetensors")
    save_file({"conv_in.weight": torch.ones(2)}, tmp_path / "none.safetensors")
    for name in ("own", "both"):
        back = load_exif_embedding(tmp_path / f"{name}.safetensors")
        assert torch.equal(back(2.8, 50.0), head(2.8, 50.0))
    assert load_exif_embedding(tmp_path / "none.safetensors") is None
    assert load_exif_embedding(tmp_path / "not there.safetensors") is None


def test_heads_that_are_wrong(tmp_path):
    path, tensors = tmp_path / "bad.safetensors", head_tensors(trained())
    save_file(tensors, path, metadata={"exif_inputs": "N, f"})
    with pytest.raises(ValueError, match="takes N, f"):
        load_exif_embedding(path)
    save_file({k: v for k, v in tensors.items() if "linear_1.bias" not in k}, path)
    with pytest.raises(ValueError, match=r"1 tensor is missing: linear_1\.bias"):
        load_exif_embedding(path)
    save_file({**tensors, "exif_embedding.linear_2.bias": torch.ones(3)}, path)
    with pytest.raises(ValueError, match=r"linear_2\.bias should be .* and is \(3,\)"):
        load_exif_embedding(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="incomplete or damaged"):
        load_exif_embedding(path)


# ------------------------------------------------------------------------------------------ words, cards


@pytest.mark.parametrize(
    ("f_number", "words"), [(1.8, "Shallow"), (9.9, "Shallow"), (10, "Deep"), (22, "Deep")]
)
def test_words_for_depth_of_field(f_number, words):
    assert camera_words.depth_of_field(f_number) == f"{words} Depth-of-Field"


def test_words_behind_a_prompt():
    assert camera_words.exif_text(2.8, 50.0) == "f/2.8, 50 mm"
    assert camera_words.appended("a dog, ", "f/2.8") == "a dog, f/2.8"
    assert camera_words.appended("", "f/2.8") == "f/2.8"


@pytest.mark.parametrize(
    ("name", "steps", "licence"),
    [
        ("dmd2_sdxl_4step_unet_fp16.safetensors", STEPS, "non-commercial"),
        ("DMD2-SDXL-1step.safetensors", (399,), "non-commercial"),
        ("sd_xl_base_1.0.safetensors", None, "states no licence"),
    ],
)
def test_public_files_are_known_by_their_names(tmp_path, name, steps, licence):
    save_file({"a": torch.ones(1)}, tmp_path / name)
    card = read_card(tmp_path / name)
    assert card.timesteps == steps
    assert licence in card.licence
    assert licence in card.summary


def test_what_an_export_says_is_read_back(tmp_path):
    path = tmp_path / "dof_sdxl_4step_fp16.safetensors"
    header = export_metadata(timesteps=(999, 499), licence="OpenRAIL++-M", stage="2", config_hash="abc")
    assert json.loads(header["timesteps"]) == [999, 499]
    save_file({"a": torch.ones(1)}, path, metadata=header)
    card = read_card(path)
    assert (card.timesteps, card.licence, card.stage) == ((999, 499), "OpenRAIL++-M", "2")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prediction": "v"}, 'predicts "v"'),
        ({"format": "fine-defocus generator 2"}, "update Fine Defocus"),
        ({"timesteps": "[249, 999]"}, r"gives the timesteps \[249, 999\]"),
        ({"timesteps": "[1000, 5]"}, "from 999 at most"),
        ({"timesteps": "none"}, "does not say for which timesteps"),
    ],
)
def test_exports_that_cannot_be_used(tmp_path, wrong, said):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(1)}, path, metadata={**export_metadata(licence="x"), **wrong})
    with pytest.raises(ValueError, match=said):
        read_card(path)


def test_a_damaged_file(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"damaged \(2 bytes\)"):
        read_card(tmp_path / "a.safetensors")
