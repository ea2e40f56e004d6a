"""The kernel of mask pasting against the twin, bit for bit."""

import pytest
import torch

from tests.ops.cuda.device import HALF_TYPES, ON_DEVICE, expected, run
from tests.ops.test_paste_masks import DEGENERATE, edges, probabilities

pytestmark = ON_DEVICE

BOXES = torch.tensor(
    [
        [1.3, 2.1, 7.8, 30.6],
        [-3.5, -20, 4.2, 34.5],
        [3, 28.4, 14, 60],
        [-40, -50, 50, 90],
        [2.2, 3.3, 2.6, 3.7],
        [20, 4, 30, 9],
        [1.25, 31.5, 6.75, 33.5],
    ]
)
"""Inside, beyond each border, beyond all of them, between pixels' centres, outside, and across words."""


@pytest.mark.parametrize("size", [(37, 9), (32, 5), (1, 3), (64, 2)])
def test_equals_the_twin(size: tuple[int, int]) -> None:
    """Pictures of less than, exactly and more than one word; neither masks nor boxes lie in a row."""
    given = probabilities(7, 5).transpose(1, 2), torch.cat([BOXES, BOXES], 1)[:, :4]
    assert not any(tensor.is_contiguous() for tensor in given)
    wanted = expected("paste_masks", *given, *size)
    assert wanted.any()
    assert torch.equal(run("paste_masks", *given, *size), wanted)
    for capacity in (7 * (size[0] * size[1] + 1), 5, 0):
        found, counted = (call("paste_rle", *given, *size, capacity) for call in (run, expected))
        assert all(map(torch.equal, found, counted))


@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_ties_fall_on_the_twins_side(dtype: torch.dtype) -> None:
    """Masks of 0 and 1 whose edges fall on pixels' centres meet the threshold exactly, or miss it by a rounding."""
    masks, boxes = edges(12, 4, side=10)
    found = run("paste_masks", masks.to(dtype), boxes, 11, 10)
    assert torch.equal(found, expected("paste_masks", masks.to(dtype), boxes, 11, 10))
    assert torch.equal(found, expected("paste_masks", masks, boxes, 11, 10)) and found.any()


def test_other_dtypes_and_shapes() -> None:
    masks, boxes = probabilities(2, 6)[:, :3], BOXES[:2]
    assert torch.equal(run("paste_masks", masks, boxes.half(), 9, 5), expected("paste_masks", masks, boxes.half(), 9, 5))
    assert torch.equal(run("paste_masks", masks.double(), boxes, 9, 5), expected("paste_masks", masks, boxes, 9, 5))


def test_nothing() -> None:
    masks = torch.ones(len(DEGENERATE), 4, 4)
    assert not run("paste_masks", masks, DEGENERATE, 5, 4).any()
    for given in ((masks[:0], BOXES[:0], 5, 4), (masks[:2], BOXES[:2], 0, 4), (masks[:2, :0, :0], BOXES[:2], 5, 4)):
        assert torch.equal(run("paste_masks", *given), expected("paste_masks", *given))
        assert all(map(torch.equal, run("paste_rle", *given, 6), expected("paste_rle", *given, 6)))
