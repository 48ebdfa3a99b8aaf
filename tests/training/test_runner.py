"""The training's commands from toy sets to exported files: what a run writes, how it stops and goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from tests.training.small_run import fill_the_disk
from tests.training.tiny_run import SMOKE
from tests.training.tiny_training import at, command, everything, lines, same, sets, step_numbers
from training.__main__ import main
from training.config.run import load_config
from training.data.packed import LATENTS, PackedSet, column_prefix
from training.networks.build import build
from training.run import runner
from training.run.checkpoint import latest
from training.run.run_folder import read_part, starting_weights

STEPS = 6


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def first(tmp_path_factory, toy):
    run = tmp_path_factory.mktemp("first") / "run"
    shown = ("log.samples_every=3", "log.sample_prompts=[a, b]")
    assert command(1, run, toy[0], "steps=3", *shown) == 0
    return run


def second_stage(first, toy):
    return [*toy, f"steps={STEPS}", "saving.every=2", f"models.generator={first}", f"models.fake={first}"]


@pytest.fixture(scope="module")
def second(tmp_path_factory, toy, first):
    run = tmp_path_factory.mktemp("second") / "run"
    shown = (f"log.samples_every={STEPS}", "log.sample_prompts=[a, b]", "log.histograms_every=3")
    assert command(2, run, *second_stage(first, toy), *shown) == 0
    return run


def test_what_a_run_leaves(second, first):
    told = json.loads((second / "run.json").read_text(encoding="utf-8"))
    config = load_config(second / "config.yaml")
    assert (told["stage"], told["config_hash"]) == ("2", config.hash)
    assert len(told["data_hash"]) == len(told["code_hash"]) == 16
    assert str(config.models.generator) == str(first)
    assert step_numbers(second) == list(range(STEPS))
    assert [line["step"] for line in lines(second, "saved")] == [2, 4, 6]
    generator = [line["step"] for line in lines(second, "step") if line["generator"]]
    assert generator == [0, 2, 4]
    assert all("dmd" in line for line in lines(second, "step") if line["generator"])
    assert yaml.safe_load((second / "config.yaml").read_text(encoding="utf-8"))["stage"] == 2


def test_histograms_count_every_value(second):
    shallow = [line["step"] for line in lines(second, "step") if line["set"] == "shallow"]
    found = lines(second, "histograms")
    assert [line["step"] for line in found] == [3, 6]
    for line, steps in zip(found, (range(3), range(3, 6)), strict=True):
        values = sum(step in steps for step in shallow)
        assert values
        assert sum(line["focus_distance_m"]["counts"]) == values
        assert sum(line["focus_scale"]["counts"]) == values
        assert sum(line["coc_px"]["counts"]) == values * 64 * 64
        for name in ("focus_distance_m", "focus_scale", "coc_px"):
            assert len(line[name]["edges"]) == len(line[name]["counts"]) + 1


def test_sample_grids_have_a_column_per_aperture(first, second):
    """Stage 1 shows a picture per prompt, stage 2 each of its two at eight apertures."""
    (sharp,) = (Image.open(file) for file in sorted((first / "samples").glob("*.png")))
    (wide,) = (Image.open(file) for file in sorted((second / "samples").glob("*.png")))
    assert wide.width == pytest.approx(8 * 256, rel=0.05)  # the gaps between tiles
    assert 2 * 256 <= wide.height <= 2 * 256 * 1.5  # and the words below them
    assert sharp.width < wide.width / 2


def test_stage_2_starts_where_stage_1_ended(second, first):
    settings = load_config(second / "config.yaml")
    networks = build(settings, starts=starting_weights(settings.models))
    assert same(networks.generator.state_dict(), read_part(first, "generator"))
    assert same(networks.fake[0].state_dict(), read_part(first, "fake"))
    ended = read_part(second, "generator")
    assert not same(networks.generator.state_dict(), ended)


def test_a_run_is_exported(second, tmp_path):
    assert main(["export", "--run", str(second), "--to", str(tmp_path), "--dtype", "fp32"]) == 0
    (generator,) = tmp_path.glob("dof_sdxl*.safetensors")
    assert same(load_file(generator), read_part(second, "generator"))
    assert (tmp_path / "vst_focus.safetensors").is_file()
    assert (tmp_path / "MODEL_CARD.md").is_file()


@pytest.mark.slow
def test_stopped_and_killed_it_ends_the_same(second, first, toy, tmp_path, monkeypatch):
    """Asked to stop after step 0, killed in step 5 after a checkpoint at 4 and the line of step 4."""
    run, given = tmp_path / "run", second_stage(first, toy)
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        at(patch, 0, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert command(2, run, *given) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    assert latest(run / "checkpoints").name == "step_000001"
    assert lines(run, "stopped")[0]["step"] == 1

    def kill():
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        at(patch, 5, kill)
        assert command(2, run, *given) == 1
    assert latest(run / "checkpoints").name == "step_000004"
    assert step_numbers(run) == [0, 1, 2, 3, 4]
    with (run / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"event": "step", "st')  # as a kill leaves a line
    assert command(2, run, *given) == 0
    assert step_numbers(run) == list(range(STEPS))
    lost = [line for line in lines(run, "step") if line["step"] == 4]
    assert len(lost) == 1
    assert same(everything(run), everything(second))


def refused(capture, status) -> str:
    """The sentence on which a command ended."""
    assert status == 1
    return capture.records[-1].getMessage()


def test_another_config_is_refused_with_what_differs(first, toy, caplog):
    before = everything(first)
    said = refused(caplog, command(1, first, toy[0], "steps=4", "loss.dmd=2", "seed=3"))
    assert "loss.dmd is 1.0 there and 2.0 now" in said
    assert "seed is 0 there and 3 now" in said
    assert same(everything(first), before)


def test_the_global_batch_stays_and_its_parts_may_change(toy, tmp_path, caplog):
    run = tmp_path / "run"
    assert command(1, run, toy[0], "steps=1", "accumulation=2") == 0
    said = refused(caplog, command(1, run, toy[0], "steps=2", "accumulation=3"))
    assert "global batch of 2" in said
    assert "is 3 now" in said
    assert command(1, run, toy[0], "steps=2", "batch=2") == 0
    assert step_numbers(run) == [0, 1]


@pytest.mark.parametrize(
    ("stage", "override", "sentence"),
    [
        (2, "data.shallow=null", "data.shallow is not set, and this run reads the shallow set"),
        (1, "data.deep=nowhere/deep", "nowhere/deep is not a packed set: it has no manifest.json"),
        (1, "size_px=128", "are (4, 8, 8), and size_px 128 needs (4, 16, 16)"),
        (1, "loss.hubr=1", 'there is no key "hubr" in loss; did you mean "loss.huber"?'),
        (1, "models.generator=nowhere", "nowhere"),
    ],
)
def test_refusals(stage, override, sentence, toy, tmp_path, caplog):
    assert sentence in refused(caplog, command(stage, tmp_path / "run", *toy, override))
    assert not (tmp_path / "run").exists()


def test_commands_that_do_not_fit(tmp_path, caplog):
    said = refused(caplog, main(["stage1", str(SMOKE), f"output={tmp_path / 'run'}"]))
    assert "is a config of stage 2: use stage2" in said
    said = refused(caplog, main(["stage1", "stage1_sdlx"]))
    assert 'There is no config "stage1_sdlx"' in said
    assert "stage1_sdxl" in said
    said = refused(caplog, main(["export", "--run", str(tmp_path), "--to", str(tmp_path / "out")]))
    assert "is not the folder of a run: it has no run.json" in said
    assert not (tmp_path / "out").exists()


def test_a_missing_shard(toy, tmp_path, caplog):
    deep = tmp_path / "deep"
    shutil.copytree(toy[0].partition("=")[2], deep)
    (deep / "latents" / "000000.tar").unlink()
    said = refused(caplog, command(1, tmp_path / "run", f"data.deep={deep}"))
    assert "lacks 1 of its" in said
    assert "latents/000000.tar" in said


def test_a_corrupt_sample_is_replaced_and_counted(toy, tmp_path, caplog):
    deep = tmp_path / "deep"
    shutil.copytree(toy[0].partition("=")[2], deep)
    packed = PackedSet(deep)
    shard, place, size = (
        packed.value(2, f"{column_prefix(LATENTS)}_{part}") for part in ("shard", "offset", "size")
    )
    packed.close()
    with (deep / shard).open("r+b") as file:
        file.seek(place + size - 8)
        file.write(b"\xff" * 8)
    run = tmp_path / "run"
    assert command(1, run, f"data.deep={deep}", "steps=4", "data.max_corrupt_share=0.25") == 0
    assert [line["corrupt_samples"] for line in lines(run, "step")][-1] == 1
    said = refused(
        caplog,
        command(1, tmp_path / "other", f"data.deep={deep}", "steps=4", "data.max_corrupt_share=0.2"),
    )
    assert "1 of 4 samples are corrupt, more than the 20.00% that are accepted" in said


def test_a_full_disk_leaves_the_earlier_checkpoint(first, toy, tmp_path, monkeypatch, caplog):
    run = tmp_path / "run"
    shutil.copytree(first, run)
    before = everything(run)
    with monkeypatch.context() as patch:
        fill_the_disk(patch, ".distcp")
        said = refused(caplog, command(1, run, toy[0], "steps=4"))
    assert "is full: the checkpoint of step 4 needs" in said
    assert "step_000003 is still whole" in said
    assert same(everything(run), before)


def test_loras_want_one_process(toy, tmp_path, monkeypatch):
    both = runner.Ranks(0, 2, torch.device("cpu"))
    monkeypatch.setattr(runner, "joined", lambda device: _as_if(both))
    config = load_config(SMOKE, [*toy, f"output={tmp_path}", "lora_rank=4"])
    with pytest.raises(ValueError, match="lora_rank is 4 and there are 2 processes"):
        runner.run(config)


class _as_if:
    def __init__(self, ranks):
        self.ranks = ranks

    def __enter__(self):
        return self.ranks

    def __exit__(self, *error):
        return None
