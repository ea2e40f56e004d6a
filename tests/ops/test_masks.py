"""Run lengths and IoU of masks against pycocotools; the ops' registrations."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from ops_cuda import decode_rle, encode_rle, mask_iou
from pipeline.data.masks import unpack


def pictures(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Blobs, noise, nothing and everything."""
    random = np.random.default_rng(seed)
    masks = random.random((count, height, width)) < random.random((count, 1, 1))
    rows, columns = np.arange(height)[:, None], np.arange(width)
    masks[::2] &= (rows - height / 2) ** 2 + (columns - width / 3) ** 2 < (min(height, width) / 2) ** 2
    masks[:1], masks[1:2] = False, True
    return torch.from_numpy(masks)


def coded(masks: torch.Tensor) -> list[dict]:
    return [coco_mask.encode(np.asfortranarray(mask.numpy(), np.uint8)) for mask in masks]


@pytest.mark.parametrize("size", [(37, 21), (1, 5), (5, 1), (64, 3)])
def test_run_lengths_equal_pycocotools_and_come_back(size: tuple[int, int]) -> None:
    masks = pictures(9, *size)
    counts, starts = encode_rle(masks.transpose(1, 2).contiguous().transpose(1, 2), 9 * (size[0] * size[1] + 1))
    for r, rle in enumerate(coded(masks)):
        assert counts[starts[r] : starts[r + 1]].tolist() == unpack(rle["counts"]).tolist()
    assert not counts[starts[-1] :].any()
    assert torch.equal(decode_rle(counts, starts, *size), masks)


def test_too_little_room_is_seen_and_wrong_counts_are_refused() -> None:
    masks = pictures(4, 6, 7)
    counts, starts = encode_rle(masks, 1000)
    cut, same = encode_rle(masks, 5)
    assert torch.equal(cut, counts[:5]) and torch.equal(starts, same) and int(starts[-1]) > 5
    counts[int(starts[2])] += 1
    with pytest.raises(ValueError, match="mask 2 sum to 43"):
        decode_rle(counts, starts, 6, 7)


def test_iou_equals_pycocotools() -> None:
    first, second = pictures(9, 33, 31), pictures(6, 33, 31, seed=1)
    crowd = torch.tensor([False, True, True, False, False, True])
    wanted = coco_mask.iou(coded(first), coded(second), crowd.int().tolist())
    assert 0 < wanted.mean() < 1
    np.testing.assert_array_equal(mask_iou(first, second, crowd).numpy(), wanted)
    assert mask_iou(first, second[:0], crowd[:0]).shape == (9, 0)
    assert mask_iou(first[:0], second, crowd).shape == (0, 6)


def test_registrations() -> None:
    masks = pictures(3, 5, 4)
    counts, starts = encode_rle(masks, 100)
    for name, given in {
        "encode_rle": (masks, 100),
        "decode_rle": (counts, starts, 5, 4),
        "mask_iou": (masks, masks, torch.zeros(3, dtype=torch.bool)),
    }.items():
        torch.library.opcheck(getattr(torch.ops.detectline, name).default, given)
