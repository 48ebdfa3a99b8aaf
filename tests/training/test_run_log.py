"""The log: lines of killed runs, histograms, and what other ranks must not write."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from training.distill.schedule import Turn
from training.run.loop import Step
from training.run.run_log import EDGES, Histograms, RunLog

CPU = torch.device("cpu")


def step(number: int) -> Step:
    turn = Turn(step=number, generator=True, shallow=False, k=2, gan=True)
    return Step(turn, {"dmd": 0.5}, {"fake": 2.0}, {"critic_right": 1.0}, 0.25)


def written(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_line_per_step(tmp_path):
    with RunLog(tmp_path, first=0, writes=True, device=CPU) as journal:
        told = journal.step(step(0), seconds=1.5)
    assert told == {"dmd": 0.5, "norm_fake": 2.0, "critic_right": 1.0}
    (line,) = written(tmp_path)
    assert line == {
        "event": "step", "step": 0, "set": "deep", "generator": True, "student_step": 2, "rate": 0.25,
        "seconds": 1.5, **told,
    }  # fmt: skip


def test_what_a_killed_run_left_is_dropped(tmp_path):
    with RunLog(tmp_path, first=0, writes=True, device=CPU) as journal:
        journal.event("started", 0)
        for number in range(4):
            journal.step(step(number))
            if number == 1:
                journal.event("saved", 2)
        journal.event("saved", 4)
    with (tmp_path / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"event": "step", "st')
    with RunLog(tmp_path, first=2, writes=True, device=CPU) as journal:
        journal.step(step(2))
    found = [(line["event"], line["step"]) for line in written(tmp_path)]
    assert found == [("started", 0), ("step", 0), ("step", 1), ("saved", 2), ("step", 2)]


def test_other_ranks_write_nothing(tmp_path):
    with RunLog(tmp_path, first=0, writes=False, device=CPU) as journal:
        journal.event("started", 0)
        assert journal.step(step(0))["dmd"] == 0.5
    assert not list(tmp_path.iterdir())


def test_histograms_lose_no_value():
    found = Histograms()
    distances = torch.tensor([0.01, 0.1, 1.0, 999.0, 5000.0])
    found.add({"focus_distance_m": (distances[:2], distances[2:]), "coc_px": (torch.full((2, 3, 3), 300.0),)})
    told = found.take(CPU)
    assert set(told) == set(EDGES)
    counts, edges = (torch.tensor(told["focus_distance_m"][name]) for name in ("counts", "edges"))
    assert counts.sum() == 5
    # below the first edge and above the last belong to the ends
    assert counts[0] == counts[-1] == 2
    one = counts.nonzero().flatten().tolist()[1]
    assert edges[one] <= 1.0 * (1 + 1e-5)
    assert edges[one + 1] > 1.0
    assert told["coc_px"]["counts"][-1] == 18
    assert sum(told["focus_scale"]["counts"]) == 0
    assert sum(found.take(CPU)["coc_px"]["counts"]) == 0


def test_tensorboard_is_asked_for_in_words(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"log\.tensorboard is on and TensorBoard cannot be imported: pip"):
        RunLog(tmp_path, first=0, writes=True, device=CPU, tensorboard=True)
