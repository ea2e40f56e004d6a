"""The numpy twin against the torch one, and against hand-made cases."""

import numpy as np
import pytest

from pipeline.predict.postprocess import to_picture


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
