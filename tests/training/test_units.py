"""The unit writer: cut, killed and resumed, failing workers, other plans, actors of Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training import units
from training.units import Unit, UnitError

ROOT = Path(__file__).parents[2]
SLOW_RUN = """
import sys, time
import pyarrow as pa
from training import units

def make():
    def work(unit):
        time.sleep(0.02)
        return pa.table({"item": list(unit.items), "by": [unit.name] * len(unit.items)})
    return work

units.run(units.plan(range(200), 3, "piece"), make, sys.argv[1], identity="one")
"""


class Squares:
    """A worker that can be pickled; fails for the items it is told."""

    def __init__(self, bad: tuple[int, ...] = ()):
        self.bad, self.pid = bad, os.getpid()

    def __call__(self, unit: Unit) -> pa.Table:
        if any(item in self.bad for item in unit.items):
            raise ValueError(f"item {unit.items[0]} is bad")
        time.sleep(0.02)
        return pa.table({"item": list(unit.items), "pid": [self.pid] * len(unit.items)})


def rows(folder, column="item"):
    files = sorted(Path(folder).glob("*.parquet"))
    return [value for file in files for value in pq.read_table(file)[column].to_pylist()]


def test_the_cut_is_the_same_every_time_and_loses_nothing():
    cut = units.plan(range(7), 3, "piece")
    assert [u.name for u in cut] == ["piece_000000", "piece_000001", "piece_000002"]
    assert [u.items for u in cut] == [(0, 1, 2), (3, 4, 5), (6,)]
    assert units.plan([], 3, "piece") == []
    with pytest.raises(ValueError, match="at least 1 item, not 0"):
        units.plan([1], 0, "piece")


def test_only_missing_units_are_done_and_progress_is_told(tmp_path):
    cut, told = units.plan(range(5), 2, "piece"), []
    units.write(tmp_path, "piece_000001", pa.table({"item": [2, 3], "pid": [0, 0]}))
    assert [u.name for u in units.missing(tmp_path, cut)] == ["piece_000000", "piece_000002"]
    assert units.run(cut, Squares, tmp_path, on_done=lambda *done: told.append(done)) == 2
    assert told == [("piece_000000", 2), ("piece_000002", 1)]
    assert rows(tmp_path) == list(range(5))
    assert units.run(cut, Squares, tmp_path) == 0


def test_other_units_finish_before_a_failure_is_told(tmp_path):
    cut = units.plan(range(8), 2, "piece")
    with pytest.raises(UnitError, match=r"1 of 4 units.*piece_000001: ValueError: item 2 is bad"):
        units.run(cut, lambda: Squares(bad=(3,)), tmp_path)
    assert rows(tmp_path) == [0, 1, 4, 5, 6, 7]
    assert units.run(cut, Squares, tmp_path) == 1
    assert rows(tmp_path) == list(range(8))


@pytest.mark.parametrize(
    ("items", "size", "identity", "said"),
    [
        (range(6), 2, "two", 'settings are "one" and those of this run "two"'),
        (range(8), 2, "one", "cut into 3 units and this run into 4"),
        ((0, 1, 2, 9, 4, 5), 2, "one", "items of piece_000001 are others"),
    ],
)
def test_another_plan_in_the_same_folder_is_refused(tmp_path, items, size, identity, said):
    units.run(units.plan(range(6), 2, "piece"), Squares, tmp_path, identity="one")
    with pytest.raises(ValueError, match=said):
        units.run(units.plan(items, size, "piece"), Squares, tmp_path, identity=identity)
    with pytest.raises(ValueError, match="2 units are called a"):
        units.run([Unit("a", ()), Unit("a", ())], Squares, tmp_path / "other")


def test_two_processes_are_not_at_one_folder(tmp_path):
    pytest.importorskip("fcntl")

    class Nosy(Squares):
        def __call__(self, unit):
            with pytest.raises(ValueError, match="Another process works in"):
                units.run([unit], Squares, tmp_path)
            return super().__call__(unit)

    assert units.run(units.plan([1], 1, "piece"), Nosy, tmp_path) == 1


def test_a_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(pq, "write_table", fails)
    with pytest.raises(OSError, match="No space left"):
        units.write(tmp_path, "piece", pa.table({"item": [1]}))
    assert list(tmp_path.iterdir()) == []


def test_killed_at_any_moment_every_row_is_there_once(tmp_path):
    script, folder = tmp_path / "slow.py", tmp_path / "out"
    script.write_text(SLOW_RUN)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(folder)]
    done_before = 0
    for more in (5, 17, 3):
        process = subprocess.Popen(command, env=environment)
        deadline = time.monotonic() + 60
        while len(list(folder.glob("piece_*.parquet"))) < done_before + more and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        done = len(list(folder.glob("piece_*.parquet")))
        assert done_before < done < 67
        done_before = done
    (folder / ".piece_000066.1.part.parquet").write_bytes(b"half of a fi")
    subprocess.run(command, env=environment, check=True, timeout=1200)
    assert rows(folder) == list(range(200))
    assert sorted(p.name for p in folder.iterdir() if p.suffix != ".parquet") == [".lock", "plan.json"]


@pytest.mark.slow
def test_actors_of_ray_do_the_same(tmp_path):
    pytest.importorskip("ray")
    cut, told = units.plan(range(12), 2, "piece"), []
    with units.ray_session(2):
        with pytest.raises(UnitError, match=r"2 of 6 units in") as raised:
            units.run(cut, _Failing, tmp_path, workers=2, on_done=lambda *done: told.append(done))
        assert rows(tmp_path) == [0, 1, 2, 3, 6, 7, 8, 9]
        assert "ValueError: item 4 is bad" in str(raised.value) or "process ended" in str(raised.value)
        assert "piece_000002" in str(raised.value)
        assert "piece_000005" in str(raised.value)
        assert units.run(cut, Squares, tmp_path, workers=2) == 2
    assert rows(tmp_path) == list(range(12))
    assert len(told) == 4
    found = set(rows(tmp_path, "pid"))
    assert os.getpid() not in found
    assert len(found) >= 2


class _Failing(Squares):
    """Raises for one unit, and takes its process down with another."""

    def __init__(self):
        super().__init__(bad=(4,))

    def __call__(self, unit):
        if 10 in unit.items:
            os._exit(1)
        return super().__call__(unit)
