"""Masks of every manifest that has them: probabilities in the boxes' frames, and full pictures."""

import numpy as np
import pytest
import torch

from ops_cuda import paste_masks
from pipeline.detector.postprocess import postprocess
from tests.parity.case import Case, close

pytestmark = pytest.mark.parity


def test_masks(case: Case) -> None:
    """Probabilities in the boxes' frames, then full pictures: of an instance's pixels at most 0.05 % may flip, or one."""
    if case.detections.masks_NDMM is None:
        pytest.skip(f"{case.kit.name} has no mask head")
    out_sizes = torch.from_numpy(case.kit.arrays["inputs/out_hw"])
    final = postprocess(case.detections, case.images.sizes_N2, out_sizes)
    assert final.masks_NDMM is not None
    for i, (height, width) in enumerate(out_sizes.tolist()):
        count, masks = int(case.detections.count_N[i]), case.detections.masks_NDMM[i]
        expected = case.kit.arrays[f"infer/{i}/mask_probs_first12"]
        if case.options.get("MODEL.ROI_MASK_HEAD.NAME") == "PointRendMaskHead":
            # Cells are refined in the order of their certainty: of two equally certain ones the last bit decides.
            off = np.abs(masks[:12].numpy() - expected) > 1e-4
            assert off.mean() <= 1e-5, f"{off.sum()} cells of image {i} differ"
        else:
            close(masks[:12], expected, atol=1e-4, what=f"masks of image {i}")
        stats = torch.stack([masks[:count].mean(dim=(1, 2)), masks[:count].flatten(1).std(dim=1, correction=0)], dim=1)
        close(stats, case.kit.arrays[f"infer/{i}/mask_probs_mean_std"], atol=1e-4, what=f"mean and deviation of image {i}")
        assert not masks[count:].any()
        count = int(final.count_N[i])
        pasted = paste_masks(final.masks_NDMM[i, :count], final.boxes_ND4[i, :count], height, width)
        shape = case.kit.arrays[f"final/{i}/masks_shape"]
        expected = np.unpackbits(case.kit.arrays[f"final/{i}/masks_packed"])[: np.prod(shape)].reshape(shape).astype(bool)
        sides = (final.boxes_ND4[i, :count, 2:] - final.boxes_ND4[i, :count, :2]).prod(dim=1).numpy()
        flipped = (pasted.numpy() != expected).sum(axis=(1, 2))
        assert (flipped <= np.maximum(1, 0.0005 * sides)).all() and flipped.sum() <= 0.0005 * sides.sum(), (
            f"image {i}: {flipped.max()} pixels of a mask differ"
        )
