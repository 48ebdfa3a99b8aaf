"""What a run writes down: a line of JSON per step, histograms, and TensorBoard's files where wanted."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lens_models.files import atomic

from ..networks.fsdp import mean_over_ranks
from .loop import Step
from .state import in_ranks

_BINS = 40
#: What is watched, from where to where, and whether the bins are even in the logarithm.
RANGES: dict[str, tuple[float, float, bool]] = {
    "focus_distance_m": (0.1, 1000.0, True),
    "focus_scale": (0.1, 10.0, True),
    "coc_px": (0.0, 256.0, False),
}


class Histograms:
    """Counts of what steps saw since the last time they were asked for; the ends hold what is beyond."""

    def __init__(self):
        self.edges = {name: edges(*record) for name, record in RANGES.items()}
        self._clear()

    def add(self, seen: Mapping[str, tuple[Tensor, ...]]) -> None:
        """Count values by name, of any shape."""
        for name, tensors in seen.items():
            for values in tensors:
                inner = self.edges[name][1:-1].to(values.device)
                found = torch.bucketize(values.detach().float().flatten(), inner, right=True)
                self.counts[name] += torch.bincount(found, minlength=_BINS).double().cpu()

    def taken(self, device: torch.device) -> dict[str, dict[str, list[float]]]:
        """Edges and counts of all ranks together, which call this together; then counting starts again."""
        world = torch.distributed.get_world_size() if in_ranks() else 1
        record = {}
        for name, counts in self.counts.items():
            whole = mean_over_ranks(counts.to(device)) * world
            record[name] = {"edges": self.edges[name].tolist(), "counts": whole.round().tolist()}
        self._clear()
        return record

    def _clear(self) -> None:
        self.counts = {name: torch.zeros(_BINS, dtype=torch.float64) for name in RANGES}


def edges(low: float, high: float, logarithmic: bool) -> Tensor:
    """Of the bins, `(_BINS + 1,)`."""
    if logarithmic:
        return torch.logspace(torch.tensor(low).log10(), torch.tensor(high).log10(), _BINS + 1)
    return torch.linspace(low, high, _BINS + 1)


class RunLog:
    """log.jsonl of a run; on other ranks than the first it takes part in what all do and writes nothing.

    first: the step that comes next. Lines of it and of later steps, which a killed run has left, are dropped.
    Raises ImportError, in a sentence, where TensorBoard is wanted and missing.
    """

    def __init__(
        self, folder: Path, *, first: int, writes: bool, device: torch.device, tensorboard: bool = False
    ):
        self._device = device
        self._file, self._board = None, None
        if not writes:
            return
        path = folder / "log.jsonl"
        _cut(path, first)
        self._file = path.open("a", encoding="utf-8")
        if tensorboard:
            self._board = _board(folder / "tensorboard", first)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for opened in (self._file, self._board):
            if opened is not None:
                opened.close()

    def event(self, what: str, step: int, **record: Any) -> None:
        """A line of something else than a step."""
        self._line({"event": what, "step": step, "time": round(time.time(), 3), **record})

    def step(self, done: Step, **further: float) -> dict[str, float]:
        """A step's line: means over the ranks, which call this together. Gives losses and norms by name."""
        numbers = {**done.losses, **{f"norm_{k}": v for k, v in done.norms.items()}, **done.watched}
        values = mean_over_ranks(
            torch.tensor(list(numbers.values()), device=self._device, dtype=torch.float64)
        )
        record = dict(zip(numbers, values.tolist(), strict=True))
        turn = done.turn
        self._line(
            {
                "event": "step", "step": turn.step, "set": turn.set_name, "generator": turn.generator,
                "student_step": turn.k, "rate": done.rate, **record, **further,
            }
        )  # fmt: skip
        if self._board is not None:
            for name, value in {**record, **further}.items():
                self._board.add_scalar(name, value, turn.step)
        return record

    def histograms(self, step: int, record: Mapping[str, Any]) -> None:
        """A line of histograms."""
        self.event("histograms", step, **record)

    def picture(self, name: str, step: int, sheet: Tensor) -> None:
        """A sample grid `(H, W, 3)` for TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, sheet.numpy(), step, dataformats="HWC")

    def _line(self, record: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()


def _cut(path: Path, first: int) -> None:
    """Keep the lines before a step, and none that a kill has broken."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["step"] < first or (record["event"] != "step" and record["step"] <= first):
            kept.append(line + "\n")
    with atomic(path) as part:
        part.write_text("".join(kept), encoding="utf-8")


def _board(folder: Path, first: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            f"log.tensorboard is on and TensorBoard cannot be imported: pip install tensorboard. ({error})"
        ) from error
    return SummaryWriter(str(folder), purge_step=first)
