"""Labels by hand without their page: order, undo, many processes, and what the blur network is given."""

from __future__ import annotations

import multiprocessing
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from training import __main__ as commands
from training.curate.classifier.net import CLASSES
from training.curate.classifier.samples import from_table
from training.people.labelling.results import agreement, decided, export, kappa
from training.people.labelling.store import LABELS, LabelError, Labels, annotator_name

ROOT = Path(__file__).parents[2]


@pytest.fixture
def photos(tmp_path) -> Path:
    """Twelve files with the names of pictures, in two folders."""
    for k in range(12):
        path = tmp_path / "photos" / ("a" if k % 2 else "b") / f"{k:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "photos" / "notes.txt").touch()
    return tmp_path / "photos"


def _answer(labels: Labels, annotator: str, said: str | list[str], count: int = 99) -> list[int]:
    given: list[int] = []
    while len(given) < count and (asked := labels.next(annotator)):
        labels.give(annotator, asked.number, said if isinstance(said, str) else said[len(given) % len(said)])
        given.append(asked.number)
    return given


def test_the_labels_are_the_networks_classes():
    assert tuple(CLASSES) == LABELS


def test_shared_photos_are_for_all_and_others_for_one(tmp_path, photos):
    labels = Labels(tmp_path / "labels.sqlite", photos, shared=4)
    anna = _answer(labels, "ANNA", "none", 6)
    bert = _answer(labels, "BERT", "desirable")
    assert anna == [1, 2, 3, 4, 5, 6]
    assert bert == [1, 2, 3, 4, 7, 8, 9, 10, 11, 12]
    assert labels.next("ANNA") is None
    assert labels.next("CARL").number == 1


def test_a_skipped_photo_is_for_the_next_one(tmp_path, photos):
    labels = Labels(tmp_path / "labels.sqlite", photos, shared=0)
    assert _answer(labels, "ANNA", ["skipped", "none"], 4) == [1, 2, 3, 4]
    assert _answer(labels, "BERT", ["none", "skipped"], 2) == [1, 3]
    assert labels.next("CARL").number == 3
    assert labels.next("ANNA").number == 5


def test_the_order_is_drawn_and_kept(tmp_path, photos):
    def order(name, seed):
        labels = Labels(tmp_path / name, photos, seed=seed)
        return [labels.photo(k).name for k in range(1, 13)]

    assert order("one", 0) == order("two", 0) != order("three", 1)
    assert sorted(order("one", 0)) == [f"{k:02d}.jpg" for k in range(12)]
    first = order("one", 0)
    (photos / "a" / "new.jpg").touch()
    again = Labels(tmp_path / "one", photos)
    assert [again.photo(k).name for k in range(1, 14)] == [*first, "new.jpg"]
    with pytest.raises(ValueError, match="begun with seed 0, not 5"):
        Labels(tmp_path / "one", photos, seed=5)
    with pytest.raises(FileNotFoundError, match="no pictures"):
        Labels(tmp_path / "four", tmp_path / "nowhere")


def test_undo_goes_back_one_by_one(tmp_path, photos):
    labels = Labels(tmp_path / "labels.sqlite", photos)
    _answer(labels, "ANNA", ["none", "skipped", "undesirable"], 3)
    with pytest.raises(LabelError, match="has your label already"):
        labels.give("ANNA", 3, "none")
    with pytest.raises(LabelError, match="blurry is no label"):
        labels.give("ANNA", 4, "blurry")
    assert [labels.undo("ANNA").number for _ in range(3)] == [3, 2, 1]
    assert labels.undo("ANNA") is None
    assert labels.all() == {}
    labels.give("ANNA", 1, "desirable")
    assert list(labels.all().values()) == [{"ANNA": "desirable"}]
    with sqlite3.connect(labels.path) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def _work(path: Path, photos: Path, name: str) -> None:
    labels = Labels(path, photos)
    while asked := labels.next(name):
        try:
            labels.give(name, asked.number, "none")
        except LabelError:
            return


def test_processes_label_at_once(tmp_path, photos):
    path, context = tmp_path / "labels.sqlite", multiprocessing.get_context("spawn")
    Labels(path, photos, shared=3)
    workers = [context.Process(target=_work, args=(path, photos, f"P{k}")) for k in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    said = Labels(path, photos).all()
    assert len(said) == 12
    assert [len(of) for of in list(said.values())[:3]] == [3, 3, 3]


def test_kappa_by_hand():
    first = ["yes"] * 15 + ["no"] * 10
    second = ["yes"] * 12 + ["no"] * 3 + ["yes"] * 3 + ["no"] * 7
    # 19 of 25 agree, both say yes of 15: chance is (15² + 10²) / 25² = 0.52, and (0.76 - 0.52) / 0.48 = 0.5
    assert kappa(first, second) == pytest.approx(0.5, abs=1e-12)
    assert kappa(first, first) == 1.0
    assert kappa([], []) is None
    assert kappa(["no"] * 3, ["no"] * 3) is None


def test_what_more_people_say_counts():
    assert decided({"A": "none", "B": "none", "C": "desirable"}) == "none"
    assert decided({"A": "none", "B": "desirable"}) is None
    assert decided({"A": "none", "B": "skipped"}) == "none"
    assert decided({"A": "skipped"}) is None


def test_the_blur_network_reads_what_is_exported(tmp_path, photos, capsys):
    labels = Labels(tmp_path / "labels.sqlite", photos, shared=4)
    _answer(labels, "ANNA", ["none", "desirable", "undesirable", "skipped"])
    _answer(labels, "BERT", ["none", "desirable", "none", "desirable"])
    table = tmp_path / "out" / "labels.csv"
    files = ["--photos", str(photos), "--labels", str(labels.path)]
    assert commands.main(["label", "export", *files, "--to", str(table)]) == 0
    said = capsys.readouterr().out
    assert "ANNA and BERT: 3 photos, Cohen's kappa" in said
    read = {Path(s.path).resolve(): CLASSES[s.label] for s in from_table(table)}
    known = {(photos / p).resolve(): decided(of) for p, of in labels.all().items()}
    assert read == {path: label for path, label in known.items() if label is not None}
    assert agreement(labels.all())[0][:3] == ("ANNA", "BERT", 3)
    assert sum(export(labels, table).values()) == 12
    assert commands.main(["label", "export", "--photos", str(photos), "--labels", "none", "--to", "x"]) == 1


@pytest.mark.parametrize("name", ["", "a", "a b", "x" * 33, "<b>", "../a"])
def test_names(name):
    with pytest.raises(LabelError, match="2 to 32"):
        annotator_name(name)


def test_nothing_here_needs_torch_or_gradio():
    code = (
        "import sys; from training.people.labelling import command, results, store; "
        "sys.exit(bool({'torch', 'gradio', 'lens_models'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
