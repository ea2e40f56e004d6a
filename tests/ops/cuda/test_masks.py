"""The kernels of bit-packed masks against the twins."""

import pytest
import torch

from tests.ops.cuda.device import ON_DEVICE, expected, run
from tests.ops.test_masks import pictures

pytestmark = ON_DEVICE


@pytest.mark.parametrize("size", [(37, 5), (1, 3), (5, 1), (64, 2), (32, 2)])
def test_run_lengths(size: tuple[int, int]) -> None:
    """Pictures of less than, exactly and more than one word."""
    masks = pictures(5, *size)
    for capacity in (5 * (size[0] * size[1] + 1), 7, 0):
        found, wanted = (call("encode_rle", masks, capacity) for call in (run, expected))
        assert all(map(torch.equal, found, wanted))
    counts, starts = expected("encode_rle", masks, 5 * (size[0] * size[1] + 1))
    assert torch.equal(run("decode_rle", counts, starts, *size), masks)


def test_run_lengths_without_room_are_not_read_beyond_it() -> None:
    """`starts` tell how much room was missing, so they point behind the counts: pixels behind the last one are outside."""
    masks = torch.rand(5, 37, 5, generator=torch.Generator().manual_seed(0)) > 0.5
    first = int(expected("encode_rle", masks[:1], 1)[1][1])
    counts, starts = expected("encode_rle", masks, first + 3)
    assert len(counts) < starts[2]
    found = run("decode_rle", counts, starts, 37, 5)
    assert torch.equal(found[0], masks[0]) and not found[2:].any()


def test_iou() -> None:
    first, second = pictures(4, 35, 5), pictures(3, 35, 5, seed=1)
    crowd = torch.tensor([False, True, True])
    assert torch.equal(run("mask_iou", first, second, crowd), expected("mask_iou", first, second, crowd))


def test_nothing() -> None:
    masks, none = pictures(2, 3, 4), torch.zeros(0, dtype=torch.bool)
    assert run("mask_iou", masks, masks[:0], none).shape == (2, 0)
    for given in (masks[:0], masks[:, :0]):
        assert all(map(torch.equal, run("encode_rle", given, 4), expected("encode_rle", given, 4)))
    counts, starts = expected("encode_rle", masks[:0], 4)
    assert run("decode_rle", counts, starts, 3, 4).shape == (0, 3, 4)
