"""The doctor's sentences on machines that can train and on those that cannot, and the command line."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lens_models.focus.predictor import load_predictor
from lens_models.generator.card import read_card
from training.__main__ import main
from training.run import doctor

REPO = Path(__file__).parents[2]
FIXTURES = REPO / "tests" / "fixtures"
ABSENT = (False, "absent")
BROKEN = (False, "RuntimeError: operator torchvision::nms does not exist")


@pytest.fixture
def machine(monkeypatch):
    """Answers of the probes, to be changed; without a change all is well on eight GPUs."""
    answers = {"gpus": [80.0] * 8, "free": 10**13, "imports": {}, "python": (True, "")}
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor, "gpu_memory_gb", lambda: answers["gpus"])
    monkeypatch.setattr(doctor, "imported", lambda module: answers["imports"].get(module, (True, "1.0")))
    monkeypatch.setattr(doctor, "run_python", lambda _code: answers["python"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**13, 0, answers["free"]))
    monkeypatch.setattr(doctor, "bfloat16", lambda device: doctor.Finding(True, f"bfloat16 on {device}."))
    monkeypatch.setattr(doctor.dist, "is_backend_available", lambda _backend: True)
    return answers


def bad(**options) -> list[str]:
    return [said for ok, said in doctor.examine(**options) if not ok]


def test_a_machine_that_can_train(machine):
    assert bad() == []
    said = " ".join(finding.message for finding in doctor.examine())
    for word in ("8 GPUs", "nccl works", "gloo works", "fully_shard", "diffusers 1.0", "transformers 1.0"):
        assert word in said


def test_a_torchvision_of_another_torch(machine):
    machine["imports"]["torchvision"] = BROKEN
    machine["imports"]["diffusers"] = (False, "RuntimeError: Failed to import diffusers.models")
    tv, diffusers = bad()
    assert f"does not go with torch {torch.__version__}" in tv
    assert "torchvision::nms does not exist" in tv
    assert "Uninstall torchvision" in tv
    assert "cannot be imported (RuntimeError: Failed to import" in diffusers


def test_no_torchvision_is_well(machine):
    machine["imports"]["torchvision"] = ABSENT
    assert bad() == []


def test_a_broken_pair_for_real(tmp_path, monkeypatch):
    """A torchvision that fails as the wrong build does, imported in a real process."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n", encoding="utf-8"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = doctor.torchvision()
    assert not found.ok
    assert "(RuntimeError: operator torchvision::nms does not exist)" in found.message
    (package / "__init__.py").write_text("__version__ = '9.9'\n", encoding="utf-8")
    assert doctor.torchvision() == (True, f"torchvision 9.9 goes with torch {torch.__version__}.")
    (package / "__init__.py").write_text("import os; os.abort()\n", encoding="utf-8")
    assert "ended by signal 6" in doctor.torchvision().message


def test_packages_in_real_processes():
    assert doctor.package("safetensors", "safetensors").ok
    assert doctor.package("no_such_module_here", "no-such") == (
        False, "no-such is not installed: pip install no-such."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "value", "said"),
    [
        ("gpus", [], "sees no GPU: install a CUDA build"),
        ("gpus", [24.0], "1 GPU, 24 GB the smallest; stage 2 takes about 112 GB on each: use more GPUs"),
        ("free", 10**9, "has 1 GB free and 192 GB are wanted for checkpoints: make room"),
    ],
)
def test_too_little_of_something(machine, answer, value, said):
    machine[answer] = value
    (found,) = bad()
    assert said in found


def test_the_stage_decides_what_is_enough(machine):
    machine["gpus"] = [40.0] * 4
    assert len(bad(stage=2)) == 1
    assert bad(stage=1) == []


def test_processes_that_cannot_talk(machine):
    machine["python"] = (False, "RuntimeError: no interface")
    assert [s.split(" does")[0] for s in bad()] == ["gloo", "nccl"]
    assert "several processes cannot train" in bad()[0]


def test_a_torch_without_a_backend(machine, monkeypatch):
    monkeypatch.setattr(doctor.dist, "is_backend_available", lambda backend: backend != "nccl")
    assert bad() == ["This torch was built without nccl: install another build."]


def test_this_torch():
    assert doctor.sharding().ok
    assert doctor.bfloat16("cpu") == (True, "bfloat16 works on cpu.")
    assert doctor.collectives("gloo", "cpu").ok
    if not torch.cuda.is_available():
        assert "bfloat16 cannot be used on cuda" in doctor.bfloat16("cuda").message


def test_an_older_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.distributed.fsdp", None)
    assert "has no fully_shard: install torch 2.6" in doctor.sharding().message


def test_files_of_weights(tmp_path):
    whole, half, empty = (tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.pth"))
    save_file({"a": torch.ones(1000)}, whole)
    half.write_bytes(whole.read_bytes()[:2000])
    empty.touch()
    findings = [doctor.weights_file(path) for path in (whole, half, empty, tmp_path / "none.pth")]
    assert [ok for ok, _ in findings] == [True, False, False, False]
    for said, word in zip(
        findings, ("is there", "incomplete or damaged", "empty", "There is no file"), strict=True
    ):
        assert word in said.message


def test_a_folder_that_is_still_to_be_made(tmp_path):
    assert doctor.free_disk(tmp_path / "runs" / "one", 0.0).ok


# ---------------------------------------------------------------------------------- the command line


def test_the_doctor_answers_by_its_exit(machine, capsys):
    assert main(["doctor"]) == 0
    machine["gpus"] = []
    assert main(["doctor"]) == 1
    assert re.search(r"^NO  torch \S+ sees no GPU", capsys.readouterr().out, re.MULTILINE)
    assert main(["doctor", "--device", "cpu"]) == 0
    assert main(["doctor", "--device", "cpu", "--weights", "none.pth"]) == 1


def test_the_estimate(capsys, caplog):
    assert main(["estimate", "--gpus", "4", "--lora-rank", "32"]) == 0
    assert "Stage 2, LoRA of rank 32, 4 × A100" in capsys.readouterr().out
    with caplog.at_level(logging.ERROR):
        assert main(["estimate", "--gpus", "12"]) == 1
    assert "12 GPUs do not fill nodes of 8" in caplog.text


def test_the_export(tmp_path, capsys, caplog):
    state = tmp_path / "state"
    state.mkdir()
    shutil.copy(FIXTURES / "dmd2" / "config.json", state)
    shutil.copy(FIXTURES / "dmd2" / "diffusion_pytorch_model.safetensors", state / "generator.safetensors")
    out = tmp_path / "out"
    assert main(["export", "--state", str(state), "--to", str(out), "--dtype", "bf16"]) == 0
    file = out / "dof_sdxl_4step_bf16.safetensors"
    assert str(file) in capsys.readouterr().out
    assert read_card(file).timesteps == (999, 749, 499, 249)
    assert (out / "MODEL_CARD.md").is_file()
    with caplog.at_level(logging.ERROR):
        assert main(["export", "--to", str(out)]) == 1
        assert main(["export", "--focus", str(tmp_path / "none.safetensors"), "--to", str(out)]) == 1
    assert "nothing to export" in caplog.text
    assert "There is no file" in caplog.text


def test_the_export_of_a_saliency_network_alone(tmp_path, caplog):
    """Weights nobody trained a scale for are not passed off as a predictor."""
    weights = FIXTURES / "vst" / "state_dict.safetensors"
    assert load_predictor(weights).notes
    assert main(["export", "--focus", str(weights), "--to", str(tmp_path)]) == 1
    assert "do not say how depth is shown" in caplog.text


def test_the_verification(tmp_path, capsys, caplog):
    from training.data.pack import PackedWriter, Record

    with PackedWriter(tmp_path / "set", about={}) as writer:
        latent = torch.ones(4, 8, 8)
        writer.add(
            Record("a", latent, latent, f_number=2.0, focal_mm=50.0, sensor_mm=36.0, caption="a",
                   crop=(0, 0), original=(64, 64))
        )  # fmt: skip
    assert main(["verify", str(tmp_path / "set")]) == 0
    assert "samples 1, 0.00 GB, as packed" in capsys.readouterr().out
    shard = next((tmp_path / "set" / "latents").iterdir())
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    assert main(["verify", str(tmp_path / "set")]) == 1
    assert "is not what was packed" in caplog.text
    assert main(["verify", str(tmp_path)]) == 1
    assert "is not a packed set" in caplog.text


@pytest.mark.parametrize("arguments", [[], ["paint"], ["export"], ["estimate", "--gpus", "many"]])
def test_commands_that_do_not_exist(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_it_runs_as_a_module():
    ran = subprocess.run(
        [sys.executable, "-m", "training", "estimate", "--gpus", "2"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "2 × A100" in ran.stdout
    assert ran.stderr == ""
