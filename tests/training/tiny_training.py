"""Whole runs of tiny networks: their sets, their commands, and all that a checkpoint of them holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

from tests.training.tiny_run import SMOKE
from training.__main__ import main
from training.config.run import load_config
from training.data.toy_sets import write
from training.networks.build import build
from training.run.checkpoint import latest
from training.run.loop import Trainer

#: Cheap settings that change nothing of what is tested: no grids, and nothing computed twice.
CHEAP = ("log.samples_every=0", "log.histograms_every=0", "checkpointing=false", "fake_updates=2")


def sets(folder: Path, count: int = 4) -> list[str]:
    """Two toy sets, as overrides of a config."""
    settings = load_config(SMOKE)
    write(folder, build(settings).vae, settings.size_px, count)
    return [f"data.{name}={folder / name}" for name in ("deep", "shallow")]


def command(stage: int, output: Path, *overrides: str) -> int:
    """`python -m training stageN`; gives the exit status."""
    given = [f"stage={stage}", f"output={output}", *CHEAP, *overrides]
    return main([f"stage{stage}", str(SMOKE), *given, "--device", "cpu"])


def everything(run: Path) -> dict[str, Tensor]:
    """Weights and optimiser state of the newest checkpoint."""
    reader = dcp.FileSystemReader(latest(run / "checkpoints") / "dcp")
    told = reader.read_metadata().state_dict_metadata
    tensors = {key: torch.empty(of.size, dtype=of.properties.dtype) for key, of in told.items()}
    dcp.load(tensors, storage_reader=reader)
    return tensors


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether all is equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def lines(run: Path, event: str | None = None) -> list[dict]:
    """Of log.jsonl."""
    told = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return told if event is None else [line for line in told if line["event"] == event]


def step_numbers(run: Path) -> list[int]:
    """Of the log's steps, in its order."""
    return [line["step"] for line in lines(run, "step")]


def at(monkeypatch, step: int, act: Callable[[], None]) -> None:
    """Let something happen once a step is computed, before it is written down."""

    whole = Trainer.step

    def one(trainer, number, source):
        done = whole(trainer, number, source)
        if number == step:
            act()
        return done

    monkeypatch.setattr(Trainer, "step", one)
