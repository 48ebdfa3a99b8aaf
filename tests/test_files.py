from __future__ import annotations

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lens_models.files import atomic


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("before")
    with atomic(path) as part:
        part.write_text("after")
        assert path.read_text() == "before"
        assert part.parent == tmp_path
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    assert path.read_text() == "after"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "notes.txt"
    path.write_text("before")

    def fails():
        with atomic(path) as part:
            part.write_text("half of wh")
            raise error

    with pytest.raises(error):
        fails()
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    assert path.read_text() == "before"


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "notes.txt"
    with atomic(path) as first, atomic(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    assert path.read_text() == "first"


def test_writers_that_look_at_the_suffix(tmp_path):
    with atomic(tmp_path / "picture.png") as part:
        Image.new("RGB", (2, 2)).save(part)
    with atomic(str(tmp_path / "weights.safetensors")) as part:
        save_file({"a": torch.ones(2)}, part)
    assert Image.open(tmp_path / "picture.png").format == "PNG"
    assert load_file(tmp_path / "weights.safetensors")["a"].tolist() == [1.0, 1.0]


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "no" / "notes.txt") as part:
        part.write_text("x")
