"""Checkpoints: exact, elastic, and whole whatever ends the process that writes them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
import yaml

from tests.training.small_run import CONFIG, DATA, Net, Run, equal, fill_the_disk
from training.run.checkpoint import Checkpoints, SaveFailed, latest, read_model, stop_requests


def saved(root, step=3, config=CONFIG, **more) -> Run:
    ours = Run()
    ours.train(0, step)
    Checkpoints(root, config, **more).save(step, ours.models, ours.optimisers, {"seen": 24})
    return ours


def test_a_resumed_run_is_the_same_to_the_bit(tmp_path):
    straight = Run()
    straight.train(0, 9)
    saved(tmp_path)
    other = Run(seed=7)
    assert not equal(other.tensors(), straight.tensors())
    found = Checkpoints(tmp_path, CONFIG).load(other.models, other.optimisers)
    assert (found.path, found.step, found.further) == (tmp_path / "step_000003", 3, {"seen": 24})
    frozen = other.models["focus"].frozen.weight
    assert frozen not in other.optimisers["both"].state  # it had no state, and has none now
    other.train(3, 9)
    assert equal(other.tensors(), straight.tensors())
    now, then = (r.optimisers["both"].state_dict()["param_groups"] for r in (other, straight))
    assert now == then  # learning rates of the schedule, weight decay, betas as a tuple


def test_a_start_from_nothing(tmp_path):
    ours = Run()
    assert Checkpoints(tmp_path / "none", CONFIG).load(ours.models, ours.optimisers) is None
    assert latest(tmp_path / "none") is None


def test_before_the_first_step_optimisers_are_empty(tmp_path):
    saved(tmp_path, step=0)
    other = Run(seed=7)
    other.train(0, 2)
    Checkpoints(tmp_path, CONFIG).load(other.models, other.optimisers)
    assert equal(other.tensors(), Run().tensors())


def test_the_folder_holds_what_it_says(tmp_path):
    saved(tmp_path)
    folder = tmp_path / "step_000003"
    assert {p.name for p in folder.iterdir()} == {"dcp", "state.json", "config.yaml", "COMPLETE"}
    assert yaml.safe_load((folder / "config.yaml").read_text()) == CONFIG
    assert [p.name for p in tmp_path.iterdir()] == ["step_000003"]


def test_weights_alone(tmp_path):
    ours = saved(tmp_path)
    folder = tmp_path / "step_000003"
    read = read_model(folder, "focus")
    wanted = ours.models["focus"].state_dict()
    assert read.keys() == wanted.keys()
    assert equal(read.values(), wanted.values())
    with pytest.raises(ValueError, match='holds no model "fake", only focus, generator'):
        read_model(folder, "fake")


def test_trainable_tensors_alone(tmp_path):
    """A mapping in place of a module: what a LoRA run keeps."""
    nets = [Net(0), Net(1)]
    chosen = [{"generator": dict(net.outer.named_parameters())} for net in nets]
    optimisers = [{"g": torch.optim.AdamW(net.outer.parameters())} for net in nets]
    nets[0](DATA).square().mean().backward()
    optimisers[0]["g"].step()
    Checkpoints(tmp_path, {}).save(1, chosen[0], optimisers[0])
    Checkpoints(tmp_path, {}).load(chosen[1], optimisers[1])
    assert torch.equal(nets[1].outer.weight, nets[0].outer.weight)
    assert not torch.equal(nets[1].inner.weight, nets[0].inner.weight)
    assert set(read_model(tmp_path / "step_000001", "generator")) == {"weight", "bias"}


def test_another_config_is_refused_with_its_differences(tmp_path):
    saved(tmp_path)
    other = {"optimiser": {"lr": 1e-6, "betas": [0.9, 0.999]}, "seed": 3, "log": {"every": 5}, "new": None}
    ours = Run(seed=7)
    before = ours.tensors()
    with pytest.raises(ValueError, match="written with another config") as refused:
        Checkpoints(tmp_path, other).load(ours.models, ours.optimisers)
    said = str(refused.value)
    for phrase in (
        "log.every is 10 there and 5 now",
        "optimiser.lr is 5e-07 there and 1e-06 now",
        "new is absent there and None now",
    ):
        assert phrase in said
    assert "betas" not in said
    assert "seed" not in said
    assert equal(ours.tensors(), before)
    free = Checkpoints(tmp_path, other, may_change=["log", "new", "optimiser.lr"])
    assert free.load(ours.models, ours.optimisers).step == 3
    with pytest.raises(ValueError, match=r"lr is .* now\. Set"):  # "optimise" is no section of this config
        Checkpoints(tmp_path, other, may_change=["log", "new", "optimise"]).load(ours.models, ours.optimisers)


def test_other_weights_and_parameters_are_refused(tmp_path):
    saved(tmp_path)
    wide = Run(width=8)
    with pytest.raises(ValueError, match=r"focus/inner.bias is \(\(7,\), torch.float32\) there and \(\(8,\)"):
        Checkpoints(tmp_path, CONFIG).load(wide.models, wide.optimisers)
    ours = Run()
    with pytest.raises(ValueError, match=r"11 not expected: focus/frozen\.bias"):
        Checkpoints(tmp_path, CONFIG).load({"generator": ours.models["generator"]}, {})
    with pytest.raises(ValueError, match="hold other parameters"):
        Checkpoints(tmp_path, CONFIG).load(ours.models, {})
    with pytest.raises(ValueError, match=r"8 parameters in the optimiser both .* \(generator\)"):
        Checkpoints(tmp_path, CONFIG).save(4, {"generator": ours.models["generator"]}, ours.optimisers)


def test_newest_complete_and_no_other(tmp_path, caplog):
    ours = Run()
    checkpoints = Checkpoints(tmp_path, CONFIG)
    for step in (1, 2, 3):
        checkpoints.save(step, ours.models, ours.optimisers)
    assert latest(tmp_path).name == "step_000003"
    (tmp_path / "step_000003" / "COMPLETE").unlink()
    (tmp_path / "step_000009").mkdir()
    assert latest(tmp_path).name == "step_000002"
    with pytest.raises(ValueError, match="step_000003 is not a complete checkpoint"):
        read_model(tmp_path / "step_000003", "focus")
    content = next((tmp_path / "step_000002" / "dcp").glob("*.distcp"))
    os.truncate(content, content.stat().st_size - 1)
    assert latest(tmp_path).name == "step_000001"
    assert "step_000002 is passed over: files are missing or cut short" in caplog.text
    (tmp_path / "step_000001" / "COMPLETE").write_text("{")
    assert latest(tmp_path) is None


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_damaged_files_are_refused(tmp_path, name):
    saved(tmp_path)
    file = tmp_path / "step_000003" / "dcp" / name
    content = bytearray(file.read_bytes())
    content[: len(content) // 2] = bytes(len(content) // 2)
    file.write_bytes(content)
    ours = Run()
    with pytest.raises(ValueError, match=r"step_000003 cannot be loaded\. Its (files|index)"):
        Checkpoints(tmp_path, CONFIG).load(ours.models, ours.optimisers)


def test_another_format_is_refused(tmp_path):
    saved(tmp_path)
    file = tmp_path / "step_000003" / "state.json"
    file.write_text(file.read_text().replace("checkpoint 1", "checkpoint 8"))
    ours = Run()
    with pytest.raises(ValueError, match='"fine-defocus checkpoint 8" and this version reads'):
        Checkpoints(tmp_path, CONFIG).load(ours.models, ours.optimisers)


def test_retention(tmp_path):
    ours = Run()
    checkpoints = Checkpoints(tmp_path, CONFIG, keep_last=2, keep_every=20)
    for step in range(5, 60, 5):
        checkpoints.save(step, ours.models, ours.optimisers)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step_0000{s}" for s in (20, 40, 50, 55)]


def test_a_step_is_saved_once_and_the_past_is_not_overwritten(tmp_path):
    ours = saved(tmp_path)
    told = (tmp_path / "step_000003" / "COMPLETE").stat().st_mtime_ns
    checkpoints = Checkpoints(tmp_path, CONFIG)
    assert checkpoints.save(3, ours.models, ours.optimisers) == tmp_path / "step_000003"
    assert (tmp_path / "step_000003" / "COMPLETE").stat().st_mtime_ns == told
    with pytest.raises(ValueError, match="step_000003 is newer than step 2"):
        checkpoints.save(2, ours.models, ours.optimisers)
    assert [p.name for p in tmp_path.iterdir()] == ["step_000003"]


@pytest.mark.parametrize("name", [".distcp", ".metadata"])
def test_a_full_disk_is_said_and_the_last_checkpoint_stays(tmp_path, monkeypatch, name):
    ours = saved(tmp_path)
    wanted = ours.tensors()
    ours.train(3, 4)
    with monkeypatch.context() as patch:
        fill_the_disk(patch, name)
        with pytest.raises(SaveFailed, match=r"full: the checkpoint of step 4 needs 0\.0 MB and .* are free"):
            Checkpoints(tmp_path, CONFIG).save(4, ours.models, ours.optimisers)
    assert [p.name for p in tmp_path.iterdir()] == ["step_000003"]  # and the room is given back
    other = Run(seed=7)
    Checkpoints(tmp_path, CONFIG).load(other.models, other.optimisers)
    assert equal(other.tensors(), wanted)
    Checkpoints(tmp_path, CONFIG).save(4, ours.models, ours.optimisers)
    assert latest(tmp_path).name == "step_000004"


def test_too_little_room_is_seen_before_writing(tmp_path, monkeypatch):
    ours = saved(tmp_path)
    usage = type(shutil.disk_usage(tmp_path))(10**9, 10**9 - 500, 500)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(dcp, "save", lambda *a, **k: pytest.fail("nothing was to be written"))
    with pytest.raises(SaveFailed, match=r"0\.0 MB are free\. step_000003 is still whole"):
        Checkpoints(tmp_path, CONFIG).save(4, ours.models, ours.optimisers)


def test_other_failures_of_the_disk_are_told(tmp_path):
    (tmp_path / "file").write_text("")
    ours = Run()
    with pytest.raises(SaveFailed, match=r"could not be written to .*\. No earlier one is there"):
        Checkpoints(tmp_path / "file", CONFIG).save(4, ours.models, ours.optimisers)


def killed_before_each_operation(source: Path, target: Path) -> None:
    """Save in forked children; number n is killed before its n-th operation on the file system."""
    torch.set_num_threads(1)
    ours = Run()
    ours.train(0, 4)
    torch.save(ours.tensors(), target.parent / "trained.pt")
    number = 0
    while True:
        root = target / f"{number:03d}"
        shutil.copytree(source, root)
        child = os.fork()
        if child == 0:
            seen = 0

            def hook(event, arguments, root=root, number=number):
                nonlocal seen
                # rmtree names what it deletes relative to an open folder
                named = event in ("open", "os.mkdir", "os.rename") and str(root) in str(arguments[0])
                if named or event in ("os.remove", "os.rmdir"):
                    if seen == number:
                        os.kill(os.getpid(), signal.SIGKILL)
                    seen += 1

            sys.addaudithook(hook)
            try:
                Checkpoints(root, CONFIG, keep_last=1).save(4, ours.models, ours.optimisers)
            except BaseException:
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            return
        number += 1


def test_killed_at_any_moment_the_newest_complete_loads(tmp_path):
    source, target = tmp_path / "source", tmp_path / "killed"
    states = {3: saved(source).tensors()}
    (source / ".step_000002.part").mkdir()  # what a run before left
    (source / ".step_000002.part" / "state.json").write_text("{}")
    target.mkdir()
    # a fresh interpreter: it has no threads whose locks a fork could freeze
    child = multiprocessing.get_context("spawn").Process(
        target=killed_before_each_operation, args=(source, target)
    )
    child.start()
    child.join(600)  # it starts torch and forks thirty times, on a machine that may be busy
    if child.is_alive():
        child.kill()
        child.join()
    assert child.exitcode == 0
    # the child's own: another process may round otherwise
    states[4] = torch.load(tmp_path / "trained.pt", weights_only=True)
    ours = Run()
    ours.train(0, 4)
    roots = sorted(target.iterdir())
    steps = []
    for root in roots:
        other = Run(seed=7)
        found = Checkpoints(root, CONFIG).load(other.models, other.optimisers)
        assert equal(other.tensors(), states[found.step])
        steps.append(found.step)
        Checkpoints(root, CONFIG, keep_last=1).save(5, ours.models, ours.optimisers)
        assert [p.name for p in root.iterdir()] == ["step_000005"]  # no remains
    assert steps == sorted(steps)
    # seen: 28 operations with torch 2.13, 16 of them before the marker, the rest delete the old one
    assert len(steps) > 15
    assert steps.count(3) > 8
    assert steps.count(4) > 4


def test_sigterm_asks_and_does_not_end():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as asked:
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
        signal.raise_signal(signal.SIGTERM)  # schedulers send it twice
        assert asked()
    assert signal.getsignal(signal.SIGTERM) == before


def test_impossible_retention_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keep_last is 0"):
        Checkpoints(tmp_path, CONFIG, keep_last=0)
