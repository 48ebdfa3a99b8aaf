"""Labels by hand: our own tables, and files as Label Studio writes them in each of its formats."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from training.curate.classifier.labels import read_labels
from training.curate.classifier.train import Training, read_samples

CONTROL = {"from_name": "blur", "to_name": "photo", "type": "choices", "origin": "manual"}


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of six photos, which only have to be there."""
    folder = tmp_path / "photos"
    for name in (
        "walk/IMG 1.jpg",
        "walk/IMG_2.jpg",
        "night/IMG_3.jpg",
        "IMG_4.jpg",
        "IMG_5.jpg",
        "IMG_6.jpg",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def annotation(person, choice, created="2026-03-01T10:00:00.000000Z", **more):
    result = [{**CONTROL, "id": "aB3", "value": {"choices": [choice]}}] if choice else []
    more = {"was_cancelled": False, "ground_truth": False, "lead_time": 2.5} | more
    return {"id": 7, "completed_by": person, "result": result, "created_at": created, **more}


def task(number, image, *annotations):
    return {"id": number, "data": {"image": image}, "annotations": list(annotations), "predictions": []}


def classes(labels: dict[str, str], photos: Path) -> dict[str, str]:
    return {Path(path).relative_to(photos).as_posix(): label for path, label in labels.items()}


def test_our_own_table_is_relative_to_its_folder(tmp_path, photos):
    table = tmp_path / "hand.csv"
    table.write_text("path,label\nphotos/IMG_4.jpg,none\nphotos/walk/IMG 1.jpg,desirable\n")
    assert classes(read_labels([table]), photos) == {"IMG_4.jpg": "none", "walk/IMG 1.jpg": "desirable"}
    samples = read_samples(Training(output="x", tables=(str(table),)))
    assert [(Path(one.path).name, one.label) for one in samples] == [("IMG_4.jpg", 0), ("IMG 1.jpg", 1)]


def test_csv_of_uploaded_photos(tmp_path, photos):
    """An upload loses the folders, gets digits in front and no spaces."""
    (tmp_path / "export.csv").write_text(
        "image,id,blur,annotator,annotation_id,created_at,updated_at,lead_time\n"
        "/data/upload/3/1f0c9a2e-IMG_1.jpg,11,none,1,21,2026-03-01T10:00:00Z,2026-03-01T10:00:00Z,3.1\n"
        "/data/upload/3/77aa0b1c-IMG_3.jpg,12,undesirable,anna@example.org,22,2026-03-01T10:01:00Z,,1.0\n"
        "/data/upload/3/00000000-IMG_4.jpg,13,,,,,,\n"
    )
    found = read_labels([tmp_path / "export.csv"], photos)
    assert classes(found, photos) == {"walk/IMG 1.jpg": "none", "night/IMG_3.jpg": "undesirable"}


def test_json_of_photos_on_this_machine(tmp_path, photos, caplog):
    """Paths are relative to Label Studio's root, which may be above or below the given folder."""
    caplog.set_level(logging.INFO)
    local = "/data/local-files/?d="
    tasks = [
        task(1, f"{local}photos/walk/IMG%201.jpg", annotation(1, "none")),
        task(
            2, f"http://localhost:8080{local}walk/IMG_2.jpg", annotation({"id": 1, "email": "a@b.c"}, "none")
        ),
        task(3, str(photos / "night" / "IMG_3.jpg"), annotation(2, "undesirable")),
        task(4, "IMG_4.jpg", annotation(1, "none"), annotation(2, "desirable")),
        task(
            5,
            "s3://bucket/some/IMG_5.jpg",
            *(annotation(k, "desirable") for k in (1, 2)),
            annotation(3, "none"),
        ),
        task(6, "IMG_6.jpg", annotation(1, "none", was_cancelled=True), annotation(2, None)),
    ]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    assert classes(read_labels([tmp_path / "export.json"], photos), photos) == {
        "walk/IMG 1.jpg": "none",
        "walk/IMG_2.jpg": "none",
        "night/IMG_3.jpg": "undesirable",
        "IMG_5.jpg": "desirable",
    }
    assert "1 photos without a majority, 2 annotations without a class" in caplog.text
    assert "0 of 2 photos with several annotators have the same class from all" in caplog.text


def test_json_min_and_an_annotation_that_was_done_again(tmp_path, photos):
    entry = {"annotation_id": 21, "updated_at": "2026-03-02T10:00:00Z", "lead_time": 2.0, "annotator": 1}
    entries = [
        {"image": "IMG_4.jpg", "id": 1, "blur": "desirable", "created_at": "2026-03-02T10:00:00Z", **entry},
        {"image": "IMG_4.jpg", "id": 1, "blur": "none", "created_at": "2026-03-01T10:00:00Z", **entry},
        {"image": "IMG_5.jpg", "id": 2, "created_at": None, **entry},
    ]
    (tmp_path / "export.json").write_text(json.dumps(entries))
    assert classes(read_labels([tmp_path / "export.json"], photos), photos) == {"IMG_4.jpg": "desirable"}


def test_exports_of_several_people_are_counted_together(tmp_path, photos):
    """Each ran Label Studio at home, where everybody is number 1."""
    for name, choice in (("anna", "none"), ("bert", "none"), ("carl", "desirable")):
        tasks = [task(1, "IMG_4.jpg", annotation(1, choice))]
        (tmp_path / f"{name}.json").write_text(json.dumps(tasks))
    found = read_labels([tmp_path / f"{name}.json" for name in ("anna", "bert", "carl")], photos)
    assert classes(found, photos) == {"IMG_4.jpg": "none"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("path,label\nIMG_4.jpg,sharp\n", r"Line 2 of e\.csv has the label sharp: use one of none, des"),
        ("path,label\nIMG_4.jpg,none\n\nIMG_9.jpg,none\n", r"Line 4 of e\.csv names IMG_9\.jpg, and there"),
        ("path,label\n,none\n", r"Line 2 of e\.csv names no photo"),
        ("file,class\nIMG_4.jpg,none\n", r"e\.csv has the columns file, class: it needs path or image"),
        ("", r"e\.csv has the columns none"),
        ('image,blur\na.jpg,"{""choices"": [""none"", ""desirable""]}"\n', "the label none, desirable: use"),
    ],
)
def test_errors_of_a_csv_name_file_and_line(tmp_path, photos, text, sentence):
    (tmp_path / "e.csv").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_labels([tmp_path / "e.csv"], photos)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([task(9, "IMG_5.jpg", annotation(1, "bad"))], r"Task 9 of e\.json has the label bad"),
        ([task(5, "/data/upload/1/0a0b0c0d-IMG_9.jpg", annotation(1, "none"))], "there is no such photo"),
        ([task(5, "IMG_4.jpg")], r"e\.json has the columns none"),
        ([{"id": 1, "data": {"image": "IMG_4.jpg"}, "annotations": [{"id": 1}]}], "not a JSON or JSON_MIN"),
        ({"a": 1}, r"e\.json is not a JSON or JSON_MIN export"),
    ],
)
def test_errors_of_json_name_file_and_task(tmp_path, photos, content, sentence):
    (tmp_path / "e.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=sentence):
        read_labels([tmp_path / "e.json"], photos)


def test_two_photos_of_one_name_are_not_guessed(tmp_path, photos):
    (photos / "night" / "IMG_2.jpg").touch()
    (tmp_path / "e.json").write_text(
        json.dumps([task(5, "/data/upload/1/0a0b0c0d-IMG_2.jpg", annotation(1, "none"))])
    )
    with pytest.raises(ValueError, match=r"Task 5 of e\.json .* 2 photos have this name .* set `photos`"):
        read_labels([tmp_path / "e.json"], photos)
