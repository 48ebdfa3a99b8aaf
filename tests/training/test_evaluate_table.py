"""The grid and its table: killed and resumed, with and without weights, beside what the paper prints."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lens_models.metrics.lpips import LPIPS
from training.__main__ import run
from training.evaluate import measures, table
from training.evaluate.methods import TABLE1
from training.evaluate.metrics.inception import FIDInception
from training.evaluate.options import load_evaluation
from training.evaluate.prompts import PromptEntry, read_prompts
from training.evaluate.statistics import bootstrap, wilson

ROOT = Path(__file__).parents[2]
RUN = """
import sys
from training.__main__ import run
sys.exit(run())
"""


def evaluate(*arguments: str) -> int:
    return run(["evaluate", *map(str, arguments)])


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [{"caption": "a dog", "f_number": 2.0, "focal_mm": 85.0}, {"prompt": "a lighthouse"}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.mark.slow
def test_all_rows_give_a_table_sheets_and_sweeps(tmp_path, prompts):
    out = tmp_path / "out"
    assert evaluate("table1", "--tiny", "--rows", "1-11,controlnet", "--prompts", prompts, "--out", out) == 0
    told = json.loads((out / "table1.json").read_text())
    assert list(told["rows"]) == list(TABLE1)
    for row in told["rows"].values():
        assert row["samples"] == 2
        assert 0 <= row["columns"]["monotonicity_linear"]["value"] <= 100
        assert row["columns"]["lpips"] == row["columns"]["fid_deep"] == {"why_not": "no weights"}
    text = (out / "table1.md").read_text()
    assert "say nothing of any method" in text
    line = next(line for line in text.splitlines() if line.startswith("| 10 |"))
    assert "| 93.91 |" in line
    assert "| 0.0064 |" in line
    assert "| 93.91 |" not in next(line for line in text.splitlines() if line.startswith("| 8 |"))
    with Image.open(out / "sheets" / "00001.png") as sheet:
        assert sheet.width >= 8 * 256
        assert sheet.height >= 12 * 256
    with Image.open(out / "sweeps" / "10_00000.webp") as moving:
        assert moving.n_frames == 14
    # both lenses look at the same sharp pictures: 2 prompts of SDXL, with and without words, stage 1 and ours
    assert len(list((out / "scenes").glob("*.npy"))) == 2 * 4
    sample = pq.read_table(out / "samples" / "10" / "prompts_000000.parquet").to_pylist()[0]
    assert sample["focal_mm"] == 85.0
    assert len(sample["energy_linear"]) == 8
    assert sample["focus_m"] > 0
    assert sample["lpips"] is None


@pytest.mark.slow
def test_killed_and_resumed_the_table_is_the_same_byte_for_byte(tmp_path):
    script, prompts = tmp_path / "run.py", tmp_path / "prompts.txt"
    script.write_text(RUN)
    prompts.write_text("".join(f"thing number {k}\n" for k in range(6)))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def start(out):
        arguments = ["evaluate", "table1", "--tiny", "--rows", "3,6,7,10", "--prompts", prompts, "--out", out]
        return subprocess.Popen([sys.executable, script, *arguments], env=environment, stderr=subprocess.PIPE)

    def samples(out):
        return sorted((out / "samples").glob("*/prompts_*.parquet"))

    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert start(straight).wait(timeout=1200) == 0
    process, deadline = start(broken), time.monotonic() + 120
    while len(samples(broken)) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 5 <= len(samples(broken)) < 12
    kept = {path: path.stat().st_mtime_ns for path in samples(broken)}
    assert start(broken).wait(timeout=1200) == 0
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    for name in ("table1.md", "table1.json"):
        assert (broken / name).read_bytes() == (straight / name).read_bytes()


def test_other_settings_do_not_mix_into_a_table(tmp_path, prompts):
    arguments = ("table1", "--tiny", "--rows", "3", "--prompts", prompts, "--out", tmp_path / "out")
    assert evaluate(*arguments, "--limit", "1") == 0
    with pytest.raises(ValueError, match=r"settings are .* and those of this run"):
        evaluate(*arguments, "--limit", "1", "--set", "seed=3")
    with pytest.raises(ValueError, match="items of prompts_000000 are others"):
        evaluate(*arguments)


def test_with_weights_every_column_has_a_number(tmp_path):
    torch.manual_seed(0)
    lpips, inception = LPIPS(), FIDInception()
    with torch.no_grad():  # heads weigh channels, which is never negative
        for name, weight in lpips.named_parameters():
            if name.startswith("lin"):
                weight.abs_()
        for weight in inception.parameters():
            if weight.ndim == 4:  # as it is made, signals die out before the features
                torch.nn.init.kaiming_normal_(weight)
    state = lpips.state_dict()
    save_file({k: v for k, v in state.items() if k.startswith("features.")}, tmp_path / "trunk.safetensors")
    save_file({k: v for k, v in state.items() if k.startswith("lin")}, tmp_path / "heads.safetensors")
    save_file(inception.state_dict(), tmp_path / "inception.safetensors")
    random = np.random.default_rng(0)
    for name in ("deep", "shallow"):
        (tmp_path / name).mkdir()
        for k in range(2):
            picture = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / name / f"{k}.png")
    sets = {
        "lpips_trunk": "trunk.safetensors",
        "lpips_heads": "heads.safetensors",
        "inception": "inception.safetensors",
        "deep": "deep",
        "shallow": "shallow",
    }
    path, stops = tmp_path / "prompts.parquet", [2.0, 16.0, 4.0, 11.0]
    pq.write_table(pa.table({"caption": [f"thing {k}" for k in range(4)], "f_number": stops}), path)
    out = tmp_path / "out"
    changed = [f"metrics.{key}={tmp_path / value}" for key, value in sets.items()]
    where = ("--prompts", path, "--out", out)
    assert evaluate("table1", "--tiny", "--rows", "10", *where, "--set", *changed, "sheet_prompts=0") == 0
    columns = json.loads((out / "table1.json").read_text())["rows"]["10"]["columns"]
    assert columns["lpips"]["value"] > 0
    for name in ("deep", "shallow"):
        assert columns[f"fid_{name}"]["value"] > 0
        assert columns[f"fid_{name}"]["pictures"] == columns[f"fid_{name}"]["photos"] == 2
    assert columns["consistency_adjacent"] == {"why_not": "no weights"}


def test_consistency_is_of_the_segmenters_label_sets():
    class Halves:
        network = torch.nn.Identity()

        def top_labels(self, srgb, count=3):
            labels = torch.zeros(len(srgb), 1, *srgb.shape[-2:], dtype=torch.long)
            labels[0, :, :, : srgb.shape[-1] // 2] = 1
            return labels

    meters = measures.Meters(load_evaluation("tiny").metrics)
    meters.__dict__["_segmenter"] = Halves()
    stops = (1.8, 4.0, 8.0, 22.0)
    pictures = measures.Pictures(torch.rand(4, 3, 32, 32))
    found = meters.sweep(pictures, stops)
    # of f/4, f/8, f/22 the first has other labels in its left half
    assert found["consistency_adjacent"] == [0.5, 1.0]
    assert found["consistency_all"] == [0.5, 0.5, 1.0]
    assert found["consistency_reference"] == [0.5, 1.0]


def test_scores_are_shares_of_steps_that_rise():
    assert table.growing([1, 2, 3, 4]) == 1.0
    assert table.growing([1, 2, 2, 4]) == pytest.approx(2 / 3)
    assert table.growing([4, 3, 2, 1]) == 0.0


def test_a_paper_value_stands_only_where_one_is_known():
    assert set(table.PAPER["table1"]) == {"9", "10", "11"}
    assert table.PAPER["table2"] == {}


def test_bootstrap_interval_of_a_known_distribution():
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    low, high = bootstrap(values, 0.95, 4000)
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    # quantiles of 4000 resamples are uncertain by about 2 % of the interval's half width
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert bootstrap(values, 0.95, 500) == bootstrap(values, 0.95, 500)
    assert bootstrap([1.0]) is None


def test_wilson_interval_by_the_published_formula():
    low, high = wilson(96, 100)
    assert (low, high) == (pytest.approx(0.9016, abs=1e-4), pytest.approx(0.9843, abs=1e-4))
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    with pytest.raises(ValueError, match="3 of 2 is no share"):
        wilson(3, 2)


def test_prompts_of_all_kinds_of_file(tmp_path, prompts):
    assert read_prompts(prompts) == [PromptEntry(0, "a dog", 2.0, 85.0), PromptEntry(1, "a lighthouse")]
    text = tmp_path / "lines.txt"
    text.write_text("one\n\n two \n")
    assert [a.prompt for a in read_prompts(text)] == ["one", "two"]
    assert read_prompts(text, 1) == [PromptEntry(0, "one")]
    for name, content, said in (
        ("a.txt", "\n", "has no prompts"),
        ("a.jsonl", "{\n", "Line 1 of a.jsonl is no JSON"),
        ("b.jsonl", '{"words": "x"}', "Prompt 1 of b.jsonl has no text"),
        ("a.csv", "x", "is no file of prompts"),
        ("a.parquet", "x", "cannot be read as parquet"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=re.escape(said)):
            read_prompts(tmp_path / name)
