"""Keypoints of every manifest that has them: heatmaps, decoded points, and both in the pictures' own frames."""

import numpy as np
import pytest
import torch

from pipeline.detector.postprocess import postprocess
from tests.parity.case import Case, close

pytestmark = pytest.mark.parity


def test_heatmaps_and_keypoints(case: Case) -> None:
    if case.detections.heatmaps_NDKMM is None:
        pytest.skip(f"{case.kit.name} has no keypoint head")
    out_sizes = torch.from_numpy(case.kit.arrays["inputs/out_hw"])
    sizes = case.images.sizes_N2
    for stage, final in (
        ("infer", postprocess(case.detections, sizes, sizes)),
        ("final", postprocess(case.detections, sizes, out_sizes)),
    ):
        assert final.keypoints_NDK3 is not None and final.heatmaps_NDKMM is None
        for i in range(len(out_sizes)):
            count, expected = int(final.count_N[i]), case.kit.arrays[f"{stage}/{i}/keypoints"]
            keypoints, found = final.keypoints_NDK3[i, :count].numpy(), f"{stage} keypoints of image {i}"
            # A point is a cell of its box's grid of pixels: where two cells hold nearly the same value either may win.
            apart = np.abs(keypoints[..., :2] - expected[..., :2]).max(axis=-1)
            assert (apart <= 0.02).mean() >= 0.998, f"{found}: {np.sort(apart.ravel())[-5:]}"
            close(keypoints[..., 2], expected[..., 2], rtol=1e-3, atol=1e-5, what=f"scores of {found}")
    for i in range(len(out_sizes)):
        first = case.kit.arrays[f"infer/{i}/heatmap_first1"]
        close(
            case.detections.heatmaps_NDKMM[i, : len(first)],
            first,
            atol=1e-4 * float(np.abs(first).max()),
            what=f"heatmap of image {i}",
        )
