from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays
from PIL import Image as Pil

from panmodal.data.masks import from_rle, mask_iou, overlay, to_picture, to_rle
from panmodal.errors import InputError

MASKS = arrays(bool, some.tuples(some.integers(1, 12), some.integers(1, 12)))


@given(MASKS)
def test_run_lengths_and_back(mask):
    mask = torch.from_numpy(mask)
    rle = to_rle(mask)
    assert rle["size"] == list(mask.shape) and sum(rle["counts"]) == mask.numel()
    assert torch.equal(from_rle(rle), mask)


def test_counts_go_down_the_columns_and_begin_outside():
    mask = torch.tensor([[1, 0, 0], [1, 1, 0]], dtype=torch.bool)
    assert to_rle(mask) == {"size": [2, 3], "counts": [0, 2, 1, 1, 2]}
    assert to_rle(~mask) == {"size": [2, 3], "counts": [2, 1, 1, 2]}


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [2, 3], "counts": [4]}, "add up to its 6 pixels"),
        ({"size": [2, 3], "counts": [7, -1]}, "add up to its 6 pixels"),
        ({"size": [2, 3], "counts": "abc"}, "a list of 'counts'"),
        ({"counts": [6]}, "a list of 'counts'"),
        ([6], "a list of 'counts'"),
    ],
)
def test_run_lengths_that_are_none(rle, message):
    with pytest.raises(InputError, match=message):
        from_rle(rle)


def test_a_mask_as_a_picture_and_over_one():
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[5:15, 5:25] = True
    assert np.array_equal(np.asarray(to_picture(mask)) > 0, mask.numpy())
    grey = Pil.new("RGB", (30, 20), (100, 100, 100))
    inner = torch.zeros_like(mask)
    inner[8:12, 8:12] = True
    shown = np.asarray(overlay(grey, [inner, mask]))
    assert shown.shape == (20, 30, 3) and (shown[0, 0] == 100).all()
    assert len({tuple(shown[y, x]) for y, x in ((0, 0), (5, 5), (13, 20), (10, 10), (8, 8))}) == 5
    assert np.array_equal(np.asarray(overlay(grey, [])), np.asarray(grey))


def test_iou():
    a, b = torch.zeros(2, 4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)
    a[0, :2], b[1:3] = True, True
    assert mask_iou(a, b).tolist() == [pytest.approx(1 / 3), 0]
    assert mask_iou(a[1], a[1]) == 1
