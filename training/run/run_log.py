"""What a run writes down: a line of JSON per step, histograms, and TensorBoard's files where wanted."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lens_models.files import atomic

from ..networks.fsdp import mean_over_ranks
from .loop import Step
from .state import in_ranks

_BINS = 40
#: What is watched, and the edges of its bins; the first and the last bin hold what is beyond.
EDGES = {
    "focus_distance_m": torch.logspace(-1, 3, _BINS + 1),
    "focus_scale": torch.logspace(-1, 1, _BINS + 1),
    "coc_px": torch.linspace(0.0, 256.0, _BINS + 1),
}


class Histograms:
    """Counts of what steps saw since the last time they were asked for."""

    def __init__(self):
        self.counts = {name: torch.zeros(_BINS, dtype=torch.float64) for name in EDGES}

    def add(self, seen: Mapping[str, tuple[Tensor, ...]]) -> None:
        """Count values by name, of any shape."""
        for name, tensors in seen.items():
            for values in tensors:
                inner = EDGES[name][1:-1].to(values.device)
                bins = torch.bucketize(values.detach().float().flatten(), inner, right=True)
                self.counts[name] += torch.bincount(bins, minlength=_BINS).double().cpu()

    def take(self, device: torch.device) -> dict[str, dict[str, list[float]]]:
        """Edges and counts of all ranks together, which call this together; then counting starts again."""
        world = torch.distributed.get_world_size() if in_ranks() else 1
        record = {}
        for name, counts in self.counts.items():
            whole = mean_over_ranks(counts.to(device)) * world
            record[name] = {"edges": EDGES[name].tolist(), "counts": whole.round().tolist()}
            counts.zero_()
        return record


class RunLog(ExitStack):
    """log.jsonl of a run; on other ranks than the first it takes part in what all do and writes nothing.

    first: the step that comes next. Lines of it and of later steps, which a killed run has left, are dropped.
    Raises ImportError, in a sentence, where TensorBoard is wanted and missing.
    """

    def __init__(
        self, folder: Path, *, first: int, writes: bool, device: torch.device, tensorboard: bool = False
    ):
        super().__init__()
        self._device = device
        self._file, self._board = None, None
        if writes:
            _cut(folder / "log.jsonl", first)
            self._file = self.enter_context((folder / "log.jsonl").open("a", encoding="utf-8"))
        if writes and tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                sentence = (
                    "log.tensorboard is on and TensorBoard cannot be imported: pip install tensorboard."
                )
                raise ImportError(f"{sentence} ({error})") from error
            self._board = self.enter_context(SummaryWriter(str(folder / "tensorboard"), purge_step=first))

    def event(self, what: str, step: int, **record: Any) -> None:
        """A line of something else than a step."""
        self._line({"event": what, "step": step, "time": round(time.time(), 3), **record})

    def step(self, done: Step, **further: float) -> dict[str, float]:
        """A step's line: means over the ranks, which call this together. Gives losses and norms by name."""
        numbers = {**done.losses, **{f"norm_{k}": v for k, v in done.norms.items()}, **done.watched}
        values = torch.tensor(list(numbers.values()), device=self._device, dtype=torch.float64)
        record = dict(zip(numbers, mean_over_ranks(values).tolist(), strict=True))
        turn = done.turn
        start = {"event": "step", "step": turn.step, "set": turn.set_name, "generator": turn.generator}
        self._line({**start, "student_step": turn.k, "rate": done.rate, **record, **further})
        if self._board is not None:
            for name, value in {**record, **further}.items():
                self._board.add_scalar(name, value, turn.step)
        return record

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
