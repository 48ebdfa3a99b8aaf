"""The contact sheet: captions, grid, layout, odd input."""

import pytest
import torch

from lens_models import Camera, Focus
from lens_models.batch import EVERY, planned, taken
from lens_models.labels import metres_label
from lens_models.show.sheet import captioned, captions, contact_sheet, grid, table

SWEEP = Camera(torch.tensor([1.8, 2.8, 22.0]), 50.0)


def test_labels_carry_what_changes_and_the_title_what_does_not():
    title, labels = captions(3, SWEEP, Focus(2.346))
    assert title == "50 mm   focus 2.35 m"
    assert labels == ["f/1.8", "f/2.8", "f/22"]
    title, labels = captions(2, Camera(2.8, 85.0), Focus(torch.tensor([0.5, 3.0])))
    assert title == "f/2.8   85 mm"
    assert labels == ["50 cm", "3 m"]
    title, labels = captions(3, SWEEP, Focus(torch.tensor([1.0, 2.0, torch.inf])))
    assert labels == ["f/1.8   1 m", "f/2.8   2 m", "f/22   ∞"]


def test_own_labels_win_and_empty_ones_do_not():
    assert captions(3, SWEEP, own=["wide open", "", "closed"])[1] == ["wide open", "f/2.8", "closed"]
    assert captions(2, own=["a"]) == ("", ["a", ""])
    assert captions(2) == ("", ["", ""])


def test_counts_that_do_not_go_together():
    with pytest.raises(ValueError, match="3 cameras do not go with 1 picture:"):
        captions(1, SWEEP)
    with pytest.raises(ValueError, match="3 focus settings do not go with 2 pictures:"):
        captions(2, None, Focus(torch.ones(3)))
    with pytest.raises(ValueError, match="6 pictures do not go with 3 cameras"):
        captions(6, SWEEP)
    with pytest.raises(ValueError, match="3 lines of labels and 2 pictures"):
        captions(2, own=["a", "b", "c"])


@pytest.mark.parametrize(
    ("distance", "text"), [(0.1, "10 cm"), (12.34, "12.3 m"), (2500.0, "2500 m"), (0.0, "0 cm")]
)
def test_distances(distance, text):
    assert metres_label(distance) == text


def test_grids():
    assert [grid(n, 3, 2) for n in (1, 2, 5, 6, 7, 8, 9)] == [
        (1, 1),
        (2, 1),
        (3, 2),
        (3, 2),
        (4, 2),
        (4, 2),
        (3, 3),
    ]
    assert grid(8, 3, 2, 3) == (3, 3)
    assert grid(2, 3, 2, 9) == (2, 1)


def test_pictures_are_where_they_belong_and_unchanged():
    images = torch.stack([torch.full((40, 60, 3), v) for v in (0.2, 0.4, 0.6)])
    sheet = contact_sheet(images, ["f/1.8", "f/2.8", "f/22"], columns=3)
    assert sheet.shape[0] == 1
    assert sheet.shape[-1] == 3
    for i, value in enumerate((0.2, 0.4, 0.6)):
        found = (sheet[0] == torch.tensor(value)).all(dim=-1)
        assert found.sum() == 40 * 60
        columns = found.any(dim=0).nonzero().flatten()
        assert columns[0] == 2 + i * 62
    below = sheet[0, 2 + 40 :]
    assert below.max() > 0.7  # there is something written


def test_no_text_no_strip():
    assert contact_sheet(torch.rand(1, 40, 60, 3), [""]).shape == (1, 44, 64, 3)


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (7, 3)])
def test_tiny_pictures_have_readable_labels(size):
    sheet = contact_sheet(torch.ones(2, *size, 3), ["f/1.8", "f/2.8"], title="50 mm   2.35 m   scale 1.25")
    assert sheet.shape[2] > 60
    assert sheet.isfinite().all()
    assert 0 <= sheet.min() <= sheet.max() <= 1


def test_long_labels_are_made_to_fit():
    long = "a label that is much longer than the picture is wide"
    sheet = contact_sheet(torch.ones(1, 64, 64, 3), [long], text_px=40)
    assert sheet.shape[2] < 400
    assert sheet.isfinite().all()


def test_transparency_shows_neutral_grey():
    images = torch.zeros(1, 4, 4, 4)
    images[..., 0, :] = 1.0
    sheet = contact_sheet(images, [""])
    assert sheet[0, 2, 2].tolist() == pytest.approx([1, 1, 1])
    assert sheet[0, 2, 3].tolist() == pytest.approx([0.5] * 3, abs=1e-3)


def test_scaled_pictures_keep_their_shape():
    assert contact_sheet(torch.rand(1, 100, 200, 3), [""], picture_width=50).shape == (1, 25 + 4, 54, 3)


def test_grey_nan_and_bright_pictures():
    images = torch.full((2, 5, 6, 1), torch.nan)
    images[1] = 9.0
    sheet = contact_sheet(images, ["a", "b"])
    assert sheet.isfinite().all()
    assert sheet.max() == 1.0


def test_label_count_is_checked():
    with pytest.raises(ValueError, match="1 labels for 2 pictures"):
        contact_sheet(torch.rand(2, 4, 4, 3), ["a"])


def test_a_caption_stands_on_the_lower_edge():
    images = torch.full((2, 100, 300, 3), 0.8)
    out = captioned(images, ["focus 2.4 m", ""])
    assert out.shape == images.shape
    assert torch.equal(out[1], images[1])
    assert torch.equal(out[0, :80], images[0, :80])
    assert out[0, 90:].min() < 0.35
    assert out[0, 85:].max() > 0.85  # ink
    assert torch.equal(images, torch.full_like(images, 0.8))


# ------------------------------------------------------------------------------- rows and columns


def product(pictures, f_numbers, distances):
    """Number of items, camera and focus of every combination."""
    plan = planned(EVERY, pictures, len(distances), len(f_numbers))
    camera, focus = Camera(torch.tensor(f_numbers), 50.0), Focus(torch.tensor(distances))
    return plan.count, taken(camera, plan.aperture), taken(focus, plan.distance)


def test_apertures_go_across_and_distances_down():
    found = table(*product(1, [1.8, 4.0], [1.0, 2.5, torch.inf]))
    assert (found.title, found.across, found.down) == ("50 mm", ["f/1.8", "f/4"], ["1 m", "2.5 m", "∞"])
    assert found.own == [""] * 6


def test_several_pictures_are_numbered_down_the_rows():
    found = table(*product(2, [1.8, 4.0], [1.0, 2.5]))
    assert found.across == ["f/1.8", "f/4"]
    assert found.down == [
        "picture 1   1 m",
        "picture 1   2.5 m",
        "picture 2   1 m",
        "picture 2   2.5 m",
    ]
    found = table(*product(3, [1.8, 4.0], [2.0]))
    assert found.title == "50 mm   focus 2 m"
    assert found.down == ["picture 1", "picture 2", "picture 3"]


def test_one_row_one_column_and_nothing_known():
    found = table(3, SWEEP, Focus(2.0))
    assert (found.title, found.across, found.down) == ("50 mm   focus 2 m", ["f/1.8", "f/2.8", "f/22"], [""])
    found = table(2, Camera(2.8, 85.0), Focus(torch.tensor([0.5, 3.0])))
    assert (found.title, found.across, found.down) == ("f/2.8   85 mm", [""], ["50 cm", "3 m"])
    found = table(2)
    assert (found.title, found.across, found.down) == ("", [""], ["picture 1", "picture 2"])


def test_distances_that_read_alike_are_rows_of_one_picture():
    found = table(*product(1, [1.8, 4.0], [2.001, 2.002]))
    assert found.down == ["", ""]
    assert "focus 2 m" in found.title


def test_own_labels_stay_under_the_pictures():
    found = table(*product(1, [1.8, 4.0], [1.0, 2.5]), own=["mine", "", "third"])
    assert found.own == ["mine", "", "third", ""]
    assert found.down == ["1 m", "2.5 m"]
    with pytest.raises(ValueError, match="3 lines of labels and 2 pictures"):
        table(2, own=["a", "b", "c"])


def test_what_is_no_table_is_told_with_both_numbers():
    with pytest.raises(ValueError, match="3 apertures and 2 distances change together in these 3 pictures"):
        table(3, SWEEP, Focus(torch.tensor([1.0, 2.0, 2.0])))
    slow = Camera(torch.tensor([1.8, 1.8, 4.0, 4.0]), 50.0)
    with pytest.raises(ValueError, match=r"2 apertures and 2 distances .* 4 pictures.*'every combination'"):
        table(4, slow, Focus(torch.tensor([1.0, 2.0, 1.0, 2.0])))
    with pytest.raises(ValueError, match="6 pictures do not go with 3 cameras"):
        table(6, SWEEP)


def places(sheet, values):
    """Top left corner of each picture of one grey on a sheet, and how many pixels are its."""
    found = [(sheet[0] == torch.tensor(v)).all(-1).nonzero() for v in values]
    return [(*f.min(0).values.tolist(), len(f)) for f in found]


def test_a_table_has_its_texts_above_and_left():
    values = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    images = torch.stack([torch.full((60, 90, 3), v) for v in values])
    sheet = contact_sheet(
        images, [""] * 6, title="50 mm", across=["f/1.8", "f/4", "f/8"], down=["1 m", "2 m"]
    )
    found = places(sheet, values)
    assert [area for *_, area in found] == [60 * 90] * 6
    tops, lefts = [y for y, *_ in found], [x for _, x, _ in found]
    assert tops[:3] == tops[:1] * 3
    assert tops[3:] == tops[3:4] * 3
    assert tops[3] == tops[0] + 60 + 2  # no strip under pictures without labels of their own
    assert lefts[:3] == lefts[3:] == [lefts[0], lefts[0] + 92, lefts[0] + 184]
    ink = sheet[0].amax(-1) > 0.75
    for top in (tops[0], tops[3]):
        assert ink[top : top + 60, : lefts[0]].any()
    for left in lefts[:3]:
        assert ink[tops[0] - 17 : tops[0], left : left + 90].any()
    # what belongs to a row or a column is in its middle, within 2 px
    rows = ink[tops[3] : tops[3] + 60, : lefts[0]].any(1).nonzero()
    assert abs(rows.double().mean().item() - 30) <= 2
    columns = ink[tops[0] - 17 : tops[0], lefts[1] : lefts[1] + 90].any(0).nonzero().double()
    assert abs((columns.min() + columns.max()).item() / 2 - 45) <= 2


def test_a_table_of_tiny_pictures_is_readable():
    sheet = contact_sheet(torch.ones(4, 2, 3, 3), [""] * 4, across=["f/1.8", "f/22"], down=["1.25 m", "∞"])
    assert sheet.shape[1] > 3 * 17  # a line of 10 px text is 17 high
    assert sheet.shape[2] > 2 * 25
    assert 0 <= sheet.min() <= sheet.max() <= 1


def test_a_table_without_texts_is_a_grid():
    images = torch.rand(4, 10, 20, 3)
    bare = contact_sheet(images, [""] * 4, across=["", ""], down=["", ""])
    assert torch.equal(bare, contact_sheet(images, [""] * 4, columns=2))


def test_rows_and_columns_hold_every_picture():
    with pytest.raises(ValueError, match="2 columns and 2 rows do not hold 5 pictures"):
        contact_sheet(torch.rand(5, 4, 4, 3), [""] * 5, across=["", ""], down=["", ""])
