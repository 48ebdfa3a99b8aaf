"""The masks of SAM: its maths against hand counts and naive loops."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import ndimage

from training.evaluate.metrics.sam_masks import (
    boxes_of,
    connected_components,
    nms,
    point_grid,
    seen_within,
    stability,
    tidied,
    without_small_regions,
)


def test_the_grid_of_points():
    assert point_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    assert len(point_grid(32)) == 1024
    assert point_grid(1).tolist() == [[0.5, 0.5]]


def test_the_size_sam_sees():
    assert seen_within(600, 800, 1024) == (768, 1024)
    assert seen_within(801, 600, 1024) == (1024, 767)  # 767.04
    assert seen_within(1, 5000, 1024) == (1, 1024)


def test_stability_by_hand():
    logits = torch.tensor(
        [[[2.0, 0.5], [-0.5, -2.0]], [[2.0, 2.0], [2.0, -3.0]], [[-5.0, -5.0], [-5.0, -5.0]]]
    )
    found = stability(logits.double(), 1.0).tolist()
    assert found[:2] == [pytest.approx(1 / 3, abs=1e-7), 1.0]  # counts are divided in float32
    assert math.isnan(found[2]), "nothing is found at either threshold"


def test_boxes_against_a_loop():
    torch.manual_seed(0)
    masks = torch.rand(20, 9, 13) > 0.96
    masks[0] = False
    for mask, box in zip(masks, boxes_of(masks).tolist(), strict=True):
        places = mask.nonzero().tolist()
        rows, columns = [y for y, _ in places], [x for _, x in places]
        assert box == ([min(columns), min(rows), max(columns) + 1, max(rows) + 1] if places else [0] * 4)


def naive_nms(boxes: list[list[float]], scores: list[float], overlap: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        for j in kept:
            a, b = boxes[i], boxes[j]
            width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            common = max(width, 0) * max(height, 0)
            areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
            if common > overlap * (areas - common):
                break
        else:
            kept.append(i)
    return kept


def test_suppression_by_hand():
    # the second covers 8 of the first's 10 columns and no more: IoU 0.8
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 8, 10], [20, 0, 30, 10]])
    scores = torch.tensor([0.8, 0.9, 0.7])
    assert nms(boxes, scores, 0.7).tolist() == [1, 2]
    assert nms(boxes, scores, 0.8).tolist() == [1, 0, 2], "only above the threshold"
    assert nms(boxes[:0], scores[:0], 0.7).tolist() == []


@pytest.mark.parametrize("overlap", [0.1, 0.4, 0.7])
def test_suppression_against_a_loop(overlap):
    generator = torch.Generator().manual_seed(3)
    corner = torch.randint(0, 40, (120, 2), generator=generator)
    boxes = torch.cat([corner, corner + torch.randint(1, 30, (120, 2), generator=generator)], dim=1)
    scores = torch.randint(0, 50, (120,), generator=generator).double()  # with equal ones
    found = nms(boxes, scores, overlap).tolist()
    assert found == naive_nms(boxes.tolist(), scores.tolist(), overlap)
    assert 1 < len(found) < 120


def spiral(side: int) -> torch.Tensor:
    """One region that winds inwards: the longest way that labels have to go."""
    mask, x, y, step = torch.zeros(side, side, dtype=torch.bool), 0, 0, (1, 0)
    length, turns = side - 1, 0
    mask[0, 0] = True
    while length > 0:
        for _ in range(length):
            x, y = x + step[0], y + step[1]
            mask[y, x] = True
        step, turns = (-step[1], step[0]), turns + 1
        if turns >= 3 and turns % 2:
            length -= 2
    return mask


@pytest.mark.parametrize("case", ["noise", "spiral", "empty", "full"])
def test_regions_are_those_of_scipy(case):
    torch.manual_seed(1)
    mask = {
        "noise": torch.rand(40, 56) > 0.7,
        "spiral": spiral(31),
        "empty": torch.zeros(5, 6, dtype=torch.bool),
        "full": torch.ones(5, 6, dtype=torch.bool),
    }[case]
    found = connected_components(mask)
    known, count = ndimage.label(mask.numpy(), structure=[[1, 1, 1]] * 3)
    pairs = set(zip(found.flatten().tolist(), known.flatten().tolist(), strict=True))
    assert len(pairs) == len(found.unique()) == len(set(known.flatten().tolist()))
    assert (0, 0) in pairs or case == "full"
    assert count == (1 if case in ("spiral", "full") else 0 if case == "empty" else count)


def test_small_regions_by_hand():
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[1:8, 1:8] = True
    mask[3:5, 3:5] = False  # a hole of 4
    mask[10, 10] = mask[11, 11] = True  # a speck of 2, joined at a corner
    whole = torch.zeros_like(mask)
    whole[1:8, 1:8] = True
    assert torch.equal(without_small_regions(mask, 5), whole)
    assert torch.equal(without_small_regions(mask, 2), mask)
    three = without_small_regions(mask, 3)
    assert not three[10:, 10:].any()
    assert not three[3, 3]
    specks = torch.zeros(12, 12, dtype=torch.bool)
    specks[0, 0] = specks[5:7, 5] = True
    assert without_small_regions(specks, 50).nonzero().tolist() == [[5, 5], [6, 5]]
    assert not without_small_regions(torch.zeros(12, 12, dtype=torch.bool), 50).any()


def test_of_masks_that_become_alike_the_unchanged_stays():
    clean = torch.zeros(20, 20, dtype=torch.bool)
    clean[2:12, 2:12] = True
    speckled = clean.clone()
    speckled[18, 18] = True
    other = torch.zeros_like(clean)
    other[14:20, 2:10] = True
    found = tidied(torch.stack([speckled, clean, other]), 4, 0.7)
    assert torch.equal(found, torch.stack([clean, other]))
    assert len(tidied(torch.stack([speckled, clean, other]), 0, 0.7)) == 3
