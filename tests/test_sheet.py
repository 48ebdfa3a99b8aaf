"""The contact sheet: captions, grid, layout, odd input."""

import pytest
import torch

from lens_models import Camera, Focus
from lens_models.sheet import captioned, captions, contact_sheet, grid, metres_label

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
