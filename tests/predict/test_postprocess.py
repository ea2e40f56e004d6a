"""The numpy twin against the torch one, and against hand-made cases."""

import numpy as np
import pytest

from pipeline.predict.postprocess import encode_mask, paste_mask, to_picture


def test_rescaled_clipped_and_empties_dropped():
    boxes = np.array([[10, 10, 20, 30], [-5, 0, 50, 50], [100, 0, 120, 20], [30, 30, 30, 40]], np.float32)
    out, rows = to_picture(boxes, (50, 100), (100, 300))
    assert rows.tolist() == [0, 1]
    assert out.tolist() == [[30, 20, 60, 60], [0, 0, 150, 100]]


def test_equal_to_the_detectors_own():
    torch = pytest.importorskip("torch")
    from pipeline.detector.postprocess import postprocess
    from pipeline.structures import Detections

    random = np.random.default_rng(0)
    n, d = 200, 40
    corners = random.uniform(-40, 400, (n, d, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + random.choice([0, 1e-3, 5, 200], (n, d, 2)).astype(np.float32)], axis=2)
    scores = -np.sort(-random.random((n, d)).astype(np.float32), axis=1)
    labels = random.integers(0, 5, (n, d))
    count = random.integers(0, d + 1, n)
    sizes, out_sizes = random.integers(30, 400, (n, 2)), random.integers(1, 2000, (n, 2))
    expected = postprocess(
        Detections(*map(torch.from_numpy, (boxes, scores, labels, count)), finite_N=torch.ones(n, dtype=torch.bool)),
        torch.from_numpy(sizes),
        torch.from_numpy(out_sizes),
    )
    dropped = 0
    for i in range(n):
        ours, rows = to_picture(boxes[i, : count[i]], tuple(sizes[i]), tuple(out_sizes[i]))
        kept = int(expected.count_N[i])
        assert len(ours) == kept
        dropped += int(count[i]) - kept
        np.testing.assert_array_equal(ours, expected.boxes_ND4[i, :kept].numpy())
        np.testing.assert_array_equal(scores[i][rows], expected.scores_ND[i, :kept].numpy())
        np.testing.assert_array_equal(labels[i][rows], expected.labels_ND[i, :kept].numpy())
    assert dropped > 100


def test_pasted_masks_of_the_reference(shared):
    golden = np.load(shared / "parity/ops.npz")
    height, width = golden["paste/hw"].tolist()
    ours = [paste_mask(m, b, height, width) for m, b in zip(golden["paste/masks"], golden["paste/boxes"], strict=True)]
    np.testing.assert_array_equal(ours, golden["paste/out_0.5"])


@pytest.mark.parametrize("kind", ["smooth", "hard", "tied"])
def test_pasted_masks_equal_the_detectors_own(kind):
    """Thin, huge and tiny boxes; masks of 0 and 1 whose edges fall on pixels' centres meet the threshold exactly."""
    torch = pytest.importorskip("torch")
    from ops_cuda import paste_masks

    random = np.random.default_rng(0)
    height, width, d = 37, 53, 300
    corner = random.uniform(0, 1, (d, 2)) * [width - 1, height - 1]
    side = random.choice([0.01, 0.7, 3, 20, 53], (d, 2)) * random.uniform(0.5, 1, (d, 2))
    boxes = np.concatenate([corner, np.minimum(corner + side, [width, height])], axis=1).astype(np.float32)
    masks = random.random((d, 14, 14)).astype(np.float32)
    if kind != "smooth":
        masks = np.round(masks)
    if kind == "tied":
        boxes = np.round(boxes * 2) / 2
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    expected = paste_masks(torch.from_numpy(masks[: len(boxes)]), torch.from_numpy(boxes), height, width).numpy()
    ours = np.array([paste_mask(m, b, height, width) for m, b in zip(masks, boxes, strict=False)])
    assert 0.01 < expected.mean() < 0.5
    np.testing.assert_array_equal(ours, expected)


def test_run_lengths_decode_to_the_mask():
    from pycocotools import mask as coco_mask

    mask = np.random.default_rng(0).random((9, 14)) < 0.4
    np.testing.assert_array_equal(coco_mask.decode([encode_mask(mask)])[:, :, 0], mask)
