"""Mask targets: cell by cell what pycocotools gives, through no code of ours but the frame's two lines."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

import ops_cuda


def pools(owners: list[list[np.ndarray]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    polygons = [polygon for owner in owners for polygon in owner]
    points = np.concatenate([np.zeros((0, 2)), *polygons])
    starts = np.cumsum([0, *map(len, polygons)])
    return torch.from_numpy(points), torch.from_numpy(starts), torch.tensor(np.cumsum([0, *map(len, owners)]))


def judge(polygons: list[np.ndarray], box: np.ndarray, size: int) -> np.ndarray:
    """The reference's frame in numpy, then pycocotools."""
    if not polygons:
        return np.zeros((size, size), bool)
    sides = np.maximum(box[2:] - box[:2], np.float32(0.1))
    moved = [((polygon - box[:2]) * (np.float32(size) / sides)).reshape(-1).tolist() for polygon in polygons]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(moved, size, size))).astype(bool)


def outlines(chance: np.random.Generator, kind: str) -> list[np.ndarray]:
    """Polygons of one owner: wild ones cross themselves; tied ones have corners on cell middles and repeat points."""
    made = []
    for _ in range(chance.integers(1, 4)):
        count = int(chance.integers(3, 12))
        if kind == "wild":
            points = chance.uniform(-30, 130, (count, 2))
        elif kind == "tied":
            points = chance.integers(-4, 44, (count, 2)) * 2.5
        else:
            angle = np.sort(chance.uniform(0, 2 * np.pi, count))
            points = 50 + np.stack([np.cos(angle), np.sin(angle)], 1) * chance.uniform(10, 45, (count, 1))
        made.append(points)
    return made


@pytest.mark.parametrize("kind", ["wild", "tied", "round"])
@pytest.mark.parametrize("size", [14, 28, 5])
def test_equals_pycocotools(kind: str, size: int) -> None:
    chance = np.random.default_rng(size)
    owners = [outlines(chance, kind) for _ in range(150)]
    corner = chance.choice([0.0, 12.5, 33.25, 70.0], (150, 2)) + (kind != "tied") * chance.random((150, 2))
    side = chance.choice([0.0, 0.05, 1.0, 25.0, 50.0, 90.0], (150, 2)) + (kind != "tied") * chance.random((150, 2))
    boxes = np.concatenate([corner, corner + side], 1).astype(np.float32)
    owner = torch.from_numpy(chance.permutation(150))
    masks = ops_cuda.rasterise_polygons(*pools(owners), torch.from_numpy(boxes), owner, size)
    expected = np.stack([judge(owners[o], box, size) for o, box in zip(owner.tolist(), boxes, strict=True)])
    assert 0.02 < expected.mean() < 0.9
    np.testing.assert_array_equal(masks.numpy(), expected)


def test_union_holes_and_rows_without_an_owner() -> None:
    """Two squares join; a square with a smaller one in the same outline has a hole; -1 and two points are empty."""
    square = np.array([[0.0, 0], [8, 0], [8, 8], [0, 8]])
    ring = np.concatenate([square, square[:1], square / 2 + 2, square[:1] / 2 + 2])
    owners = [[square / 2, square / 2 + 4], [ring], [square[:2]], []]
    box = torch.tensor([[0.0, 0, 8, 8]]).expand(5, 4)
    masks = ops_cuda.rasterise_polygons(*pools(owners), box, torch.tensor([0, 1, 2, 3, -1]), 8)
    eye = np.kron(np.eye(2), np.ones((4, 4))).astype(bool)
    hole = np.pad(np.zeros((4, 4), bool), 2, constant_values=True)
    np.testing.assert_array_equal(masks[:2].numpy(), [eye, hole])
    assert not masks[2:].any()


def test_far_and_broken_points_end() -> None:
    """A tiny box beside a huge polygon, and coordinates that are no numbers, cost no more than others."""
    wild = [np.array([[1e7, 0], [-1e7, 3e6], [50, -1e9]]), np.array([[np.nan, 0], [5, np.inf], [9, 9]])]
    inside = ops_cuda.rasterise_polygons(*pools([wild]), torch.tensor([[5.0, 5, 5.01, 5.01]]), torch.tensor([0]), 28)
    assert inside.shape == (1, 28, 28) and inside.dtype == torch.bool


def test_opcheck() -> None:
    points, polygon_starts, owner_starts = pools([[np.random.default_rng(0).uniform(0, 9, (5, 2))]])
    arguments = (points, polygon_starts, owner_starts, torch.tensor([[0.0, 0, 9, 9]] * 2), torch.tensor([0, -1]), 7)
    torch.library.opcheck(torch.ops.detectline.rasterise_polygons.default, arguments)


def test_pools_are_read_by_their_offsets() -> None:
    """The pool of a batch gives every owner what it gets alone."""
    chance = np.random.default_rng(3)
    owners = [outlines(chance, "round") for _ in range(6)]
    points, polygon_starts, owner_starts = pools(owners)
    box = torch.tensor([[10.0, 20, 90, 80]])
    for number, (first, last) in enumerate(pairwise(owner_starts.tolist())):
        alone = pools([[points[a:b].numpy() for a, b in pairwise(polygon_starts[first : last + 1].tolist())]])
        together = ops_cuda.rasterise_polygons(points, polygon_starts, owner_starts, box, torch.tensor([number]), 14)
        assert torch.equal(together, ops_cuda.rasterise_polygons(*alone, box, torch.tensor([0]), 14))
