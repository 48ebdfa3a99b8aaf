"""The generator's nodes in ComfyUI: parity with the published loop, and what artists put around it.

A tiny SDXL with random weights in ComfyUI's own sampling code; see inside_generate.py.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lens_models.generator.card import export_metadata
from lens_models.generator.exif_embedding import (
    ExifEmbedding,
    camera_conditioned,
    head_tensors,
    load_exif_embedding,
)
from lens_models.generator.schedule import ItemNoise
from tools import provision
from tools.provision import REPO
from tools.server import HostError
from tools.workflow import Graph
from training.networks.sdxl_unet import build_unet, generate, load_unet

pytestmark = pytest.mark.host

INSIDE = Path(__file__).parent / "inside_generate.py"
FIXTURE = REPO / "tests" / "fixtures" / "dmd2"
STEPS = (999, 749, 499, 249)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """What the host needs from here: heads, an export's header, the names of SDXL's tensors."""
    folder = tmp_path_factory.mktemp("generate")
    torch.manual_seed(0)
    head = ExifEmbedding(128)
    save_file(head_tensors(head), folder / "zero.exif.safetensors")
    torch.nn.init.normal_(head.linear_2.weight, std=0.1)
    save_file(head_tensors(head), folder / "trained.exif.safetensors")
    save_file(head_tensors(ExifEmbedding(1280)), folder / "wide.exif.safetensors")
    with torch.device("meta"):
        names = {key: list(t.shape) for key, t in build_unet().state_dict().items()}
    (folder / "sdxl_keys.json").write_text(json.dumps(names))
    (folder / "header.json").write_text(json.dumps(export_metadata(licence="Apache-2.0")))
    return folder


@pytest.fixture(scope="module")
def answers(work):
    host = provision.host()
    env = {**os.environ, "PYTHONPATH": str(host.shim or "")}
    arguments = [str(host.python), str(INSIDE), str(REPO), str(work)]
    ran = subprocess.run(arguments, cwd=host.checkout, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def check(answers):
    """What one of the checks found; its failure in there is a failure here."""

    def look_up(name):
        assert not isinstance(answers[name], str), answers[name]
        return answers[name]

    return look_up


@pytest.fixture(scope="module")
def seen(answers, work):
    """Clean estimates of the nodes, by what they were made with."""
    return load_file(work / "seen.safetensors")


@pytest.fixture(scope="module")
def upstream():
    return load_file(FIXTURE / "io.safetensors")


def twin(upstream, unet=None, **more):
    """Every clean estimate of the diffusers twin."""
    seen, noises = [], [upstream[f"noise{i}"] for i in range(4)]
    with torch.no_grad():
        generate(
            unet or load_unet(FIXTURE), noises, upstream["emb"], upstream["pooled"],
            on_step=lambda _i, clean: seen.append(clean), **more,
        )  # fmt: skip
    return torch.stack(seen)


def rounded(dtype):
    """The twin whose weights were rounded once, computing in float32."""
    return load_unet(FIXTURE).to(dtype).float()


def relative(ours, theirs):
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()


# ----------------------------------------------------------------------------------------------- parity


def test_every_step_is_the_published_one(check, capsys):
    """Rounding of float32 over a network of 328 tensors; reached: 4.9e-7."""
    found = check("parity")
    with capsys.disabled():
        print("\nAIF Sampler against the published loop, relative:", found)
    assert set(found) == {str(t) for t in STEPS}
    assert all(value <= 1e-6 for value in found.values())


def test_other_schedules_and_samplers_are_not(check):
    """Why there is a sampler of its own: ComfyUI's, with what is usually chosen."""
    found = check("peers")
    assert found["lcm simple"] <= 1e-6  # the same four timesteps, and the same noise put in
    assert min(found["lcm karras"], found["lcm normal"]) > 0.1
    assert found["euler simple"] > 0.25


def test_the_twin_gives_the_same(seen, upstream):
    assert relative(seen["fp32"], twin(upstream)) <= 1e-6


@pytest.mark.parametrize(("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_precision_weights_lose_their_rounding_and_no_more(seen, upstream, name, dtype):
    """bf16 keeps 8 bits of each weight, which alone is 2e-3 here; the computation adds nothing to it."""
    assert relative(seen[name], twin(upstream, rounded(dtype))) <= 1e-6
    assert relative(seen[name][-1], upstream["x0_249"]) <= {"fp16": 1e-3, "bf16": 4e-3}[name]


def test_a_later_start_is_the_twins(seen, upstream):
    """Two and one steps from a latent, with the noise of seed 5."""
    unet = load_unet(FIXTURE)
    for ours, start in zip(seen["later"], (2, 3), strict=True):
        noise, shape = ItemNoise(5, (1, 4, 8, 8)), {"start_step": start, "latent": seen["picture"]}
        with torch.no_grad():
            draws = [noise.draw() for _ in range(4 - start)]
            theirs = generate(unet, draws, upstream["emb"], upstream["pooled"], **shape)
        assert relative(ours, theirs) <= 1e-6


def test_the_exif_head_is_the_twins(seen, upstream, work):
    unet = load_unet(FIXTURE)
    with camera_conditioned(unet, load_exif_embedding(work / "trained.exif.safetensors"), 2.8, 50.0):
        assert relative(seen["exif"], twin(upstream, unet)) <= 1e-6


def test_every_tensor_of_an_export_has_its_place(check):
    found = check("keys")
    assert found == {
        "family": "SDXL", "in the file": 1680, "mapped": 1680, "missing": 0, "unexpected": 0,
        "in ComfyUI": 1680,
    }  # fmt: skip


# ----------------------------------------------------------------------------------- schedules and batches


def test_schedules(check):
    found = check("schedules")
    assert found["4"] == list(STEPS)
    assert (found["1"], found["2"]) == ([999], [999, 499])
    assert found["8"] == [999, 874, 749, 624, 499, 374, 249, 124]
    assert found["one-step student"] == 399
    assert found["its input over noise"] == pytest.approx(1.0, abs=1e-6)
    assert "made for the timesteps 399, and 4 steps are chosen" in found["said"][1]


def test_an_item_of_a_batch_is_the_item_alone(check):
    """The noise is equal to the bit; matrix products are not over batch sizes, so pictures are to 3e-7."""
    found = check("batch")
    assert found["same_noise"]
    assert found["again_equal"]
    assert found["wrapped"]
    assert max(found["alone"], found["picked"]) <= 1e-6
    assert found["items_differ"] > 0.1
    assert found["text"] == ["4 steps at 999, 749, 499, 249, seeds 7 to 10"]


def test_masks_and_later_starts(check):
    found = check("pictures_in")
    assert found["kept"] <= 1e-6 < 0.1 < found["made"]
    assert found["own mask"]
    assert found["whole"]  # at step 0 the latent does not shine through
    assert found["later"][0] == 0.0
    assert min(found["later"][1:]) > 0.1
    assert "The latent is empty, so start_step keeps nothing" in found["said"][1]
    works, text = found["odd size"]
    assert works
    assert "104 × 72 px is not in steps of 64 px" in text[1]


# ------------------------------------------------------------------------------- what is put around it


def test_a_lora_and_its_removal(check):
    found = check("lora")
    assert found["changed"] > 1e-3
    assert found["restored"]
    assert found["attached"] == list(STEPS)
    assert "non-commercial" in found["text"][0]
    assert "None of the 1 layers of other.safetensors" in found["other"]
    assert "choose an SDXL checkpoint as base" in found["no base"]


def test_a_controlnet(check):
    found = check("control")
    assert found["changed"] > 1e-2
    assert found["finite"]
    assert found["restored"]


def test_the_camera_as_numbers(check):
    found = check("exif")
    assert found["zero"] == {"equal": True, "changed": 0.0, "untouched": True}
    assert found["trained"]["changed"] > 1e-3
    assert found["trained"]["untouched"]
    assert found["told twice"]  # the last camera counts
    assert found["third of a sweep"] <= 1e-6
    assert found["cfg"]
    assert "4 cameras do not go with 3 pictures" in found["two for three"]
    assert "no EXIF head" in found["no head"]
    assert "needs the model" in found["no model"]
    assert "1280 wide and this model's time embedding 128" in found["other width"]


def test_the_camera_in_words(check):
    found = check("exif")
    assert found["deep / shallow words"] == ["a dog, Shallow Depth-of-Field", "a dog, Deep Depth-of-Field"]
    assert found["EXIF as text"] == ["a dog, f/9, 50 mm", "a dog, f/10, 50 mm"]
    for how in ("deep / shallow words", "EXIF as text"):
        assert "sweep of 4, and a prompt takes one" in found[f"{how}, sweep"]


def test_files(check):
    found = check("loader")
    assert [name.endswith(".exif.safetensors") for name in found["files"]] == [False] * len(found["files"])
    assert all("dmd2" in name or "dof_sdxl" in name for name in found["files"][:2])
    assert found["ours"][0] == "dof_sdxl_4step_fp32.safetensors: 4-step, licence: Apache-2.0; EXIF head"
    assert "1-step" in found["public"][0]
    assert "CC BY-NC 4.0, non-commercial" in found["public"][0]
    assert "no CLIP and VAE" in found["ours"][1]
    assert found["heads"] == [True, True]
    assert found["rest"] == [[None, None], [None, None]]
    assert found["same pictures"] <= 1e-6


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("velocity", 'predicts "v"'),
        ("half", "incomplete or damaged (0.1 MB)"),
        ("other", "not a model that ComfyUI knows"),
        ("other.pt", "not a model that ComfyUI knows"),
        ("noise.pt", "not a model that ComfyUI knows"),
        ("no file", "There is no model file yet"),
    ],
)
def test_files_that_cannot_be_used(check, name, said):
    assert said in check("loader")[name]
    assert check("loader")[name].startswith("ValueError")


def test_from_noise_to_a_sweep_of_apertures(check):
    """Every node of the way at toy size, with random weights: only that it goes through is shown."""
    found = check("to_bokeh")
    assert found["picture"] == [1, 128, 128, 3]
    assert found["sweep"] == [3, 128, 128, 3]
    assert 0 < found["sharpness"][0] < found["sharpness"][1] < found["sharpness"][2]


# --------------------------------------------------------------------------------------- when it goes wrong


def test_previews_interruption_and_memory(check):
    found = check("shown")
    assert found["steps"] == [[i, 4, [8, 8]] for i in (1, 2, 3, 4)]
    assert found["interrupted"].startswith("InterruptProcessingException")
    assert found["clean"]
    assert found["memory"].startswith("OutOfMemoryError: The device's memory does not hold 4 × 64 × 64 px")
    assert found["clean after memory"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v_prediction", "predicts velocity (v-prediction)"),
        ("v checkpoint", "predicts velocity (v-prediction)"),
        ("lcm", "in the way of LCM"),
        ("x0", "predicts the picture itself"),
        ("flow", "predicts flow"),
        ("img_to_img_flow", "predicts flow"),
        ("family", "of the family SD15"),
        ("no model", "connect Load AIF Generator"),
        ("16 channels", "has 16 channels and SDXL's has 4"),
        ("video", "of a video or of sound"),
        ("small", "64 × 56 px"),
        ("none", "one picture at least"),
        ("no samples", "holds no latent"),
        ("no pooled", "no pooled output"),
        ("pair", "There is no negative prompt here"),
        ("pair in a list", "a pair of conditionings, as for CFG"),
        ("empty prompt", "positive input is empty"),
        ("other clip", "768 numbers per token and this model reads 32"),
        ("other pooled", "1280 numbers and this model reads 32"),
        ("late", "start_step is 4, and with 4 steps the last one is 3"),
        ("masks", "2 masks do not go with 3 latents"),
    ],
)
def test_bad_input_is_a_sentence(check, name, said):
    answer = check("bad")[name]
    assert answer.startswith("ValueError")
    assert said in answer


def test_a_noise_table_of_another_kind_is_said(check):
    assert "ends at 4519 and SDXL's at 14.61" in check("bad")["zero snr"][1]


# ------------------------------------------------------------------------------------------ in the server


def told(**inputs):
    g = Graph()
    camera = g(
        "FineDefocusCamera", aperture="f/2.8", f_number=2.8, focal_mm=50.0, sensor="Full frame 36 × 24 mm",
        sensor_width_mm=36.0, sensor_height_mm=24.0, framing="crop to the picture",
    )  # fmt: skip
    node = g("FineDefocusCameraConditioning", camera=camera, **inputs)
    g("PreviewAny", source=node.out(1))
    return g, node[0]


def test_words_in_the_server(comfy):
    g, node = told(how="EXIF as text", prompt="a dog")
    outputs = comfy.prompt(g)["outputs"]
    assert outputs[node]["text"] == ["f/2.8, 50 mm"]
    assert ["a dog, f/2.8, 50 mm"] in [o.get("text") for o in outputs.values()]
    with pytest.raises(HostError, match="needs the model"):
        comfy.prompt(told(how="EXIF embedding", prompt="")[0])


def test_no_file_in_the_server(comfy):
    g = Graph()
    g("PreviewAny", source=g("FineDefocusLoadAIFGenerator", file="no model file yet", base="none"))
    with pytest.raises(HostError, match=r"There is no model file yet|Value not in list"):
        comfy.prompt(g)
