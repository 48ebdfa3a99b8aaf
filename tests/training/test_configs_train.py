"""Every config that is handed out trains at tiny size, and trains what it says."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open

from tests.training.test_config import TRAINED
from tests.training.tiny_training import CHEAP, lines, sets, step_numbers
from training.__main__ import main
from training.config.run import load_config
from training.networks.build import build
from training.run.checkpoint import latest, models_in
from training.run.run_folder import read_part, starting_weights

STEPS = 4
TINY = (
    "models={source: tiny, teacher: null, generator: null, fake: null, text: null, vae: null, depth: null, "
    "focus: null}",
    "size_px=64",
    "depth_canvas=[56,56]",
    "precision=float32",
    "vae_precision=float32",
    "lens.max_radius_px=8",
    "optimiser.warmup_steps=0",
    # above the rounding of float32, which weights of about 1 need to be seen to move
    "optimiser.lr=1e-4",
    "optimiser.focus_lr=1e-4",
    f"steps={STEPS}",
)
#: Weights shall move by their gradients alone.
STILL = ("optimiser.weight_decay=0",)
#: What a checkpoint holds where it is not all networks of the stage.
PARTS = {
    "t2_row3_mean_depth": {"generator", "fake"},
    "t2_row5_frozen_generator": {"focus", "fake"},
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return sets(tmp_path_factory.mktemp("sets"))


def moved(run, settings, part):
    """Names of the part's tensors that have left where they started."""
    network = getattr(build(settings, starts=starting_weights(settings.models)), part)
    start = (network[0] if part == "fake" else network).state_dict()
    end = read_part(run, part)
    assert start.keys() == end.keys()
    return {name for name, tensor in end.items() if not torch.equal(tensor, start[name])}


@pytest.mark.slow
@pytest.mark.parametrize("path", TRAINED, ids=lambda p: p.stem)
def test_it_trains(path, toy, tmp_path):
    run = tmp_path / "run"
    stage = load_config(path).stage
    lora = ("lora_rank=4",) if load_config(path).lora_rank else ()
    own = () if path.stem == "smoke_cpu" else TINY
    overrides = [*own, *toy, *CHEAP, *lora, *STILL, f"steps={STEPS}", f"output={run}"]
    assert main([f"stage{stage}", str(path), *overrides, "--device", "cpu"]) == 0
    settings = load_config(run / "config.yaml")
    assert step_numbers(run) == list(range(STEPS))
    told = lines(run, "step")
    both = settings.stage == 2 or settings.sets == "both"
    assert {line["set"] for line in told} == ({"deep", "shallow"} if both else {"deep"})
    assert any("huber" in line for line in told) == (stage == 2 and settings.focus == "predicted")

    expected = {"generator", "fake", "focus"} if stage == 2 else {"generator", "fake"}
    parts = set(models_in(latest(run / "checkpoints")))
    assert parts == PARTS.get(path.stem, expected)
    for part in parts:
        assert moved(run, settings, part), part

    if path.stem != "t1_row4_exif_embedding":
        return
    assert any(name.startswith("exif.") for name in moved(run, settings, "generator"))
    assert main(["export", "--run", str(run), "--to", str(tmp_path / "out")]) == 0
    (file,) = (tmp_path / "out").glob("dof_sdxl*.safetensors")
    with safe_open(file, framework="pt") as exported:
        names = set(exported.keys())
    assert any("exif" in name for name in names)
