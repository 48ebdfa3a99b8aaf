"""Content consistency: hand counts on small label maps, odd input."""

from __future__ import annotations

import pytest
import torch

from lens_models.metrics.consistency import (
    UNLABELLED,
    content_consistency,
    label_codes,
    sets_meet,
    top_labels,
)

# Three pictures of 2 x 3 px with three labels of each pixel, one map per label. Counted by hand, the sets of
# a pixel meet where there is an x:   A, B: . x . / . . x    B, C: . . . / x x x    A, C: x . x / x . .
A = [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [1, 2, 3]], [[0, 1, 2], [3, 4, 5]]]
B = [[[3, 9, 5], [6, 1, 4]], [[2, 8, 1], [2, 7, 5]], [[8, 7, 6], [9, 0, 8]]]
C = [[[5, 3, 3], [1, 0, 9]], [[1, 4, 9], [6, 1, 8]], [[9, 3, 8], [4, 9, 1]]]


def sweep() -> torch.Tensor:
    return torch.tensor([A, B, C])


def test_hand_counts():
    a, b, c = sweep()
    assert sets_meet(a, b).tolist() == [[False, True, False], [False, False, True]]
    assert sets_meet(b, c).tolist() == [[False, False, False], [True, True, True]]
    assert sets_meet(a, c).tolist() == [[True, False, True], [True, False, False]]
    found = content_consistency(sweep())
    assert (found.pairs, found.shares) == (((0, 1), (1, 2)), (2 / 6, 3 / 6))
    assert found.score == pytest.approx(5 / 12, abs=1e-15)  # the rounding of a mean
    every = content_consistency(sweep(), "all")
    assert (every.pairs, every.shares) == (((0, 1), (0, 2), (1, 2)), (2 / 6, 3 / 6, 3 / 6))
    with_last = content_consistency(sweep(), "reference")
    assert (with_last.pairs, with_last.shares) == (((0, 2), (1, 2)), (3 / 6, 3 / 6))
    with_first = content_consistency(sweep(), "reference", 0)
    assert (with_first.pairs, with_first.shares) == (((1, 0), (2, 0)), (2 / 6, 3 / 6))


def test_the_order_of_the_labels_of_a_pixel_does_not_matter():
    turned = sweep().clone()
    turned[1] = turned[1].flip(0)
    assert content_consistency(turned).shares == content_consistency(sweep()).shares


def test_the_same_picture_agrees_and_another_does_not():
    assert content_consistency(torch.tensor([A, A, A])).score == 1.0
    assert content_consistency(torch.stack([torch.tensor(A), torch.tensor(A) + 100])).score == 0.0


def test_one_label_each():
    maps = torch.tensor([[[1, 2], [3, 4]], [[1, 2], [3, 5]]])
    assert content_consistency(maps).score == 3 / 4


def test_pixels_without_a_label():
    none = UNLABELLED
    # agree, differ, labelled in one only, labelled in neither: 1 of the 3 that count
    maps = torch.tensor([[[1, 2, none, none]], [[1, 3, 4, none]]])
    assert content_consistency(maps).score == 1 / 3
    with pytest.raises(ValueError, match="Pictures 1 and 2 have no label anywhere"):
        content_consistency(torch.full((2, 3, 4, 4), none))


def test_three_labels_agree_where_one_does_not():
    """The point of the three: the likeliest two have changed places."""
    scores = torch.tensor([[0.5, 0.4, 0.1, 0.0], [0.4, 0.5, 0.0, 0.1]])[:, :, None, None]
    assert content_consistency(top_labels(scores, 1)).score == 0.0
    assert content_consistency(top_labels(scores)).score == 1.0


def test_top_labels():
    scores = torch.tensor([0.1, 0.7, 0.2, 0.4])[None, :, None, None]
    assert top_labels(scores)[0, :, 0, 0].tolist() == [1, 3, 2]
    assert top_labels(scores[:, :2])[0, :, 0, 0].tolist() == [1, 0, UNLABELLED]
    with pytest.raises(ValueError, match="At least 1 label"):
        top_labels(scores, 0)


def test_codes_of_pictures():
    red, green, black = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)
    image = torch.tensor([[[red, green, black, red]]])
    codes = label_codes(image)
    assert codes.shape == (1, 1, 4)
    assert len(set(codes.flatten().tolist())) == 3
    assert codes[0, 0, 0] == codes[0, 0, 3]
    # every value of an 8-bit file is a label of its own, the same in grey, in a mask and in another image
    steps = torch.arange(256.0).reshape(1, 1, 256) / 255.0
    assert len(set(label_codes(steps).flatten().tolist())) == 256
    assert torch.equal(label_codes(steps), label_codes(steps[..., None].expand(-1, -1, -1, 3)))
    half_transparent = torch.cat([image, torch.full((1, 1, 4, 1), 0.5)], dim=-1)
    assert torch.equal(label_codes(half_transparent), codes)
    with pytest.raises(ValueError, match="1, 3 or 4 channels"):
        label_codes(torch.zeros(1, 2, 2, 2))


@pytest.mark.parametrize(
    ("labels", "settings", "said"),
    [
        (torch.zeros(1, 4, 4, dtype=torch.long), {}, "at least 2 of them; there is 1"),
        (torch.zeros(2, 4, 4), {}, "Labels are whole numbers, not torch.float32"),
        (torch.zeros(4, 4, dtype=torch.long), {}, "Labels are"),
        (torch.zeros(2, 0, 4, dtype=torch.long), {}, "Labels are"),
        (torch.zeros(2, 4, 4, dtype=torch.long), {"pairing": "some"}, 'Unknown pairing "some"'),
        (
            torch.zeros(2, 4, 4, dtype=torch.long),
            {"pairing": "reference", "reference": 2},
            "no picture 2 to compare with among 2",
        ),
    ],
)
def test_bad_input_is_a_sentence(labels, settings, said):
    with pytest.raises(ValueError, match=said):
        content_consistency(labels, **settings)
