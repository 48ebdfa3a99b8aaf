"""The human study without its page: manifest, draw, votes of many processes, and what is made of them."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.__main__ import run
from training.people.study.draw import draw, ours_is_left
from training.people.study.manifest import ManifestError, read_manifest
from training.people.study.results import preference_plot, preferences, summary, write_results
from training.people.study.store import Store, Vote, VoteError, participant_code

ROOT = Path(__file__).parents[2]
PAIRS = [(f"p{p:02d}", f"b{b}") for p in range(25) for b in range(6)]


@pytest.fixture
def manifest(tmp_path) -> Path:
    """25 prompts, ours and 6 baselines; the files only have to be there."""
    for name in ("ours", *(f"b{k}" for k in range(6))):
        (tmp_path / f"{name}.webm").touch()
    methods = {"ours": "Ours", **{f"b{k}": f"Baseline {k}" for k in range(6)}}
    media = {method: f"{method}.webm" for method in methods}
    prompts = [{"id": f"p{k:02d}", "prompt": f"prompt {k}", "media": media} for k in range(25)]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"ours": "ours", "methods": methods, "prompts": prompts}))
    return path


def _changed(path: Path, **changes) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def _answer(store: Store, code: str, side: str = "left", count: int = 99) -> str:
    code = store.join(code)
    while count and (question := store.question(code)):
        store.vote(code, question.number, side, 1.5)
        count -= 1
    return code


def test_manifest(manifest):
    read = read_manifest(manifest)
    assert read.baselines == tuple(f"b{k}" for k in range(6))
    assert len(read.pairs) == 150
    assert read.prompt("p03").media["b2"] == manifest.parent / "b2.webm"
    assert read_manifest(_changed(manifest, question="Which?")).digest != read.digest


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ours": "mine"}, "ours is 'mine'"),
        ({"methods": {"ours": "Ours"}}, "at least one baseline"),
        ({"prompts": []}, "at least one prompt"),
        ({"colour": 1}, "has colour, but only"),
        ({"prompts": [{"id": "a", "prompt": "a", "media": {"ours": "ours.webm"}}]}, "files for ours"),
        ({"prompts": [{"id": "a"}]}, "needs id, prompt and media"),
    ],
)
def test_manifest_says_what_is_wrong(manifest, changes, said):
    with pytest.raises(ManifestError, match=said):
        read_manifest(_changed(manifest, **changes))


def test_manifest_needs_files_that_play_together(manifest):
    prompts = json.loads(manifest.read_text())["prompts"][:2]
    with pytest.raises(ManifestError, match="more than one prompt has the id p00"):
        read_manifest(_changed(manifest, prompts=[prompts[0], prompts[0]]))
    prompts[0]["media"]["b1"] = "gone.webm"
    with pytest.raises(ManifestError, match=r"gone\.webm is missing"):
        read_manifest(_changed(manifest, prompts=prompts))
    (manifest.parent / "b1.png").touch()
    prompts[0]["media"]["b1"] = "b1.png"
    with pytest.raises(ManifestError, match="mixes videos and pictures"):
        read_manifest(_changed(manifest, prompts=prompts))
    prompts[0]["media"]["b1"] = "manifest.json"
    with pytest.raises(ManifestError, match="a browser shows"):
        read_manifest(_changed(manifest, prompts=prompts))


def _evaluated(folder: Path) -> Path:
    """What `evaluate table1` leaves: titles, and the sweeps of two of three prompts."""
    rows = {row: {"title": f"Method {row}"} for row in ("1", "9", "11")}
    (folder / "runs" / "sweeps").mkdir(parents=True)
    (folder / "runs" / "table1.json").write_text(json.dumps({"rows": rows}))
    for row in rows:
        for k in range(2):
            (folder / "runs" / "sweeps" / f"{row}_{k:05d}.webp").touch()
    (folder / "prompts.txt").write_text("a cat\na dog\na hen\n")
    return folder / "runs"


def test_a_manifest_of_an_evaluation(tmp_path, capsys):
    runs, made = _evaluated(tmp_path), tmp_path / "study" / "study.json"
    files = ("--from", runs, "--prompts", tmp_path / "prompts.txt", "--to", made)
    assert _run("study", "manifest", *files) == 0
    assert "2 prompts x 2 baselines" in capsys.readouterr().out
    read = read_manifest(made)
    assert (read.ours, read.baselines) == ("11", ("1", "9"))
    assert [prompt.text for prompt in read.prompts] == ["a cat", "a dog"]
    assert read.prompt("00001").media["9"].resolve() == runs / "sweeps" / "9_00001.webp"
    assert _run("study", "manifest", *files, "--baselines", "9") == 0
    assert read_manifest(made).methods == {"11": "Method 11", "9": "Method 9"}
    with pytest.raises(ManifestError, match="has no row 10; it has 1, 9, 11"):
        _run("study", "manifest", *files, "--ours", "10")
    for sweep in (runs / "sweeps").glob("9_*"):
        sweep.unlink()
    with pytest.raises(ManifestError, match="sheet_prompts=25"):
        _run("study", "manifest", *files)
    with pytest.raises(ManifestError, match="neither table1"):
        _run("study", "manifest", "--from", tmp_path, *files[2:])


def test_a_draw_is_even_and_repeats_itself():
    first = draw(PAIRS, {}, {}, "ANNA", 20)
    assert first == draw(PAIRS, {}, {}, "ANNA", 20)
    assert first != draw(PAIRS, {}, {}, "BERT", 20)
    assert first != draw(PAIRS, {}, {}, "ANNA", 20, seed=1)
    assert len({prompt for prompt, _ in first}) == 20  # no prompt twice while others are left
    assert sorted(Counter(baseline for _, baseline in first).values()) == [3, 3, 3, 3, 4, 4]
    asked = dict.fromkeys(PAIRS, 1) | {pair: 0 for pair in PAIRS[40:50]}
    assert set(PAIRS[40:50]) <= set(draw(PAIRS, {}, asked, "ANNA", 20))
    answered = dict.fromkeys(PAIRS, 2) | {pair: 1 for pair in PAIRS[:20]}
    assert set(draw(PAIRS, answered, asked, "ANNA", 20)) == set(PAIRS[:20])  # answers come before questions
    assert sorted(draw(PAIRS[:4], {}, {}, "ANNA", 20)) == PAIRS[:4]


def test_sides_are_fair():
    left = sum(ours_is_left(f"P{k}", pair) for k in range(20) for pair in PAIRS)
    # 3000 fair coins: standard deviation 27, so 4 of them
    assert abs(left - 1500) < 110
    assert any(ours_is_left("ANNA", pair) != ours_is_left("ANNA", pair, seed=1) for pair in PAIRS)


def test_all_pairs_are_answered_equally_often(tmp_path, manifest):
    store = Store(tmp_path / "votes.sqlite", read_manifest(manifest))
    for k in range(15):
        _answer(store, f"P-{k:02d}")
    votes = store.votes()
    assert len(votes) == 300
    counts = Counter((vote.prompt, vote.baseline) for vote in votes)
    assert set(counts) == set(store.manifest.pairs)
    assert set(counts.values()) == {2}
    assert store.participants() == (15, 15)


def test_a_participant_goes_on_and_votes_once(tmp_path, manifest):
    store = Store(tmp_path / "votes.sqlite", read_manifest(manifest), count=5)
    code = _answer(store, " anna-1 ", "right", count=2)
    assert code == "ANNA-1"
    again = Store(tmp_path / "votes.sqlite", read_manifest(manifest))
    assert again.count == 5
    assert again.join("Anna-1") == code
    question = again.question(code)
    assert (question.number, question.total) == (3, 5)
    with pytest.raises(VoteError, match="Question 2 has your vote already"):
        again.vote(code, 2, "left", 1.0)
    with pytest.raises(VoteError, match="Question 4 is not your next one"):
        again.vote(code, 4, "left", 1.0)
    for side, seconds in (("up", 1.0), ("left", float("nan")), ("left", -1.0)):
        with pytest.raises(VoteError, match="could not be read"):
            again.vote(code, 3, side, seconds)
    assert [vote.side for vote in again.votes()] == ["right", "right"]
    assert {vote.seconds for vote in again.votes()} == {1.5}
    _answer(again, code)
    assert again.question(code) is None
    assert again.participants() == (1, 1)
    with pytest.raises(VoteError, match="Question 6 is not"):
        again.vote(code, 6, "left", 1.0)
    with sqlite3.connect(tmp_path / "votes.sqlite") as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_store_belongs_to_one_study(tmp_path, manifest):
    path = tmp_path / "votes.sqlite"
    Store(path, read_manifest(manifest), seed=3)
    with pytest.raises(ValueError, match="seed 3 and not 4"):
        Store(path, read_manifest(manifest), seed=4)
    with pytest.raises(ValueError, match="votes of another study"):
        Store(path, read_manifest(_changed(manifest, question="Another?")))
    with pytest.raises(ValueError, match="at least 1 question; 0"):
        Store(tmp_path / "other.sqlite", read_manifest(manifest), count=0)


@pytest.mark.parametrize("code", ["", "ab", "a b c", "x" * 33, "a/../b", "<b>", "ÄÖÜ"])
def test_codes(code):
    with pytest.raises(VoteError, match="3 to 32"):
        participant_code(code)


def _compete(path: Path, manifest: Path, own: str, refused) -> None:
    store = Store(path, read_manifest(manifest))
    for code in (store.join("SHARED"), store.join(own)):
        for number in range(1, 21):
            try:
                store.vote(code, number, "left", 1.0)
            except VoteError:
                refused.put((code, number))


def test_processes_vote_at_once(tmp_path, manifest):
    path, context = tmp_path / "votes.sqlite", multiprocessing.get_context("spawn")
    refused = context.Queue()
    workers = [context.Process(target=_compete, args=(path, manifest, f"OWN-{k}", refused)) for k in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    counts = Counter(vote.participant for vote in Store(path, read_manifest(manifest)).votes())
    assert counts == {"SHARED": 20, "OWN-0": 20, "OWN-1": 20, "OWN-2": 20}
    # each shared question was voted on three times, and two of the three were refused
    lost = Counter(refused.get(timeout=5) for _ in range(40))
    assert lost == {("SHARED", number): 2 for number in range(1, 21)}


def test_preferences(manifest):
    read = read_manifest(manifest)
    votes = [Vote("A", "p00", "b0", "left", "left" if k < 8 else "right", 1.0) for k in range(10)]
    votes += [Vote("A", "p01", "b1", "right", "left", 1.0)] * 10
    first, second, third = preferences(votes, read)[:3]
    assert (first["votes"], first["wins"], first["share"]) == (10, 8, 0.8)
    # Wilson's interval of 8 of 10, from the roots of (p - s)^2 = z^2 s (1 - s) / n
    roots = np.sort(np.roots([1 + 1.959964**2 / 10, -(1.6 + 1.959964**2 / 10), 0.64]))
    assert (first["low"], first["high"]) == pytest.approx(tuple(roots), abs=1e-6)
    assert (second["wins"], second["low"]) == (0, 0.0)
    assert second["high"] == pytest.approx(1.959964**2 / (10 + 1.959964**2), abs=1e-6)
    assert (third["votes"], third["share"], third["low"]) == (0, None, None)


def _run(*arguments: str | Path) -> int:
    return run([str(argument) for argument in arguments])


def test_results_as_files(tmp_path, manifest, capsys):
    store = Store(tmp_path / "votes.sqlite", read_manifest(manifest))
    code = store.join("ANNA")
    while question := store.question(code):
        store.vote(code, question.number, question.ours if question.baseline != "b0" else "left", 2.0)
    files = ("--manifest", manifest, "--votes", store.path, "--out", tmp_path / "out")
    assert _run("study", "results", *files) == 0
    written = [Path(line) for line in capsys.readouterr().out.split()]
    assert [path.name for path in written] == ["study.json", "study.md", "study.png"]
    found = json.loads(written[0].read_text())
    assert found == json.loads(json.dumps(summary(store)))
    assert (found["votes"], found["finished"], found["median_seconds"]) == (20, 1, 2.0)
    assert all(row["share"] == 1.0 for row in found["baselines"][1:])
    last = found["baselines"][5]
    assert f"| Baseline 5 | {last['votes']} | {last['wins']} | 100.0 % |" in written[1].read_text()
    assert Image.open(written[2]).size[0] == 1200
    with pytest.raises(FileNotFoundError, match="is missing"):
        _run("study", "results", "--manifest", manifest, "--votes", tmp_path / "no", "--out", tmp_path)
    assert not (tmp_path / "no").exists()


def test_bars_are_as_long_as_their_shares():
    rows = [
        {"name": "Whole", "votes": 20, "share": 1.0, "low": 0.8, "high": 1.0},
        {"name": "Half", "votes": 20, "share": 0.5, "low": 0.3, "high": 0.7},
        {"name": "None yet", "votes": 0},
    ]
    (axes,) = preference_plot(rows, "Ours chosen over").axes
    assert [bar.get_width() for bar in axes.patches] == [1.0, 0.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Whole", "Half", "None yet"]
    assert {text.get_text() for text in axes.texts} == {"100.0% of 20", "50.0% of 20", "no votes yet"}


def test_without_matplotlib_there_is_no_plot_but_a_table(manifest, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    store = Store(tmp_path / "votes.sqlite", read_manifest(manifest))
    assert [path.name for path in write_results(store, tmp_path / "out")] == ["study.json", "study.md"]
    assert "python -m pip install matplotlib" in caplog.text


def test_nothing_here_needs_torch_or_gradio():
    code = (
        "import sys; from training.people.study import command, results, store, sweeps; "
        "sys.exit(bool({'torch', 'gradio', 'lens_models'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
