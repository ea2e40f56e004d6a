"""Dense poses of every manifest that has them: maps in the boxes' frames."""

import numpy as np
import pytest
import torch

from tests.parity.case import Case, close

pytestmark = pytest.mark.parity

FIELDS = {"coarse_segm": "dense_coarse_NDCMM", "fine_segm": "dense_fine_NDCMM", "u": "dense_u_NDCMM", "v": "dense_v_NDCMM"}


@pytest.mark.parametrize("field", FIELDS)
def test_dense_maps(case: Case, field: str) -> None:
    maps = getattr(case.found, FIELDS[field], None)
    if maps is None:
        pytest.skip(f"{case.kit.name} has no dense pose head")
    for i, count in enumerate(case.found.count_N.tolist()):
        own = maps[i, :count]
        expected = case.kit.arrays[f"infer/{i}/dp_{field}_strided"]
        step = own.shape[-1] // expected.shape[-1]
        tolerance = 1e-4 * float(np.abs(expected).max())
        close(own[: len(expected), :, ::step, ::step], expected, atol=tolerance, what=f"{field} of image {i}")
        stats = [float(s) for s in (own.mean(), own.std(), own.min(), own.max())]
        expected_stats = case.kit.arrays[f"infer/{i}/dp_{field}_stats"]
        close(stats, expected_stats, rtol=1e-4, atol=1e-4 * float(own.std()), what=f"{field} stats of image {i}")
        assert not maps[i, count:].any()
    assert torch.isfinite(maps).all()
