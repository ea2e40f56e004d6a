"""Semantic and panoptic maps of every manifest that has them, in the requested output size."""

import json

import numpy as np
import pytest
import torch

from pipeline.detector.pretrained.detectron2.translate import translate
from pipeline.detector.semantic_maps import merge, picture_logits
from pipeline.predict.panoptic import semantic_map
from pipeline.structures import Panoptic, SemanticMaps
from tests.parity.case import Case, close

pytestmark = pytest.mark.parity
FLIPPED = 0.0005
"""Share of a map's pixels that may differ: float noise of 1e-6 already flips some (the manifest says how many)."""


def semantic(case: Case) -> SemanticMaps:
    if isinstance(case.found, Panoptic):
        return case.found.semantic
    if isinstance(case.found, SemanticMaps):
        return case.found
    pytest.skip(f"{case.kit.name} has no semantic branch")


def stride(case: Case) -> int:
    found: int = case.model.sem_seg_head.common_stride  # type: ignore[assignment, union-attr]
    return found


def sizes(case: Case) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Per picture its size inside the network's input, and the one asked for."""
    return [
        (tuple(a), tuple(b))
        for a, b in zip(case.images.sizes_N2.tolist(), case.kit.arrays["inputs/out_hw"].tolist(), strict=True)
    ]


def test_semantic_maps(case: Case) -> None:
    logits_NChw = semantic(case).logits_NChw
    for i, (size, out) in enumerate(sizes(case)):
        full = picture_logits(logits_NChw[i], stride(case), size, out)
        assert list(full.shape) == case.kit.arrays[f"final/{i}/sem_seg_shape"].tolist()
        close(full[:, ::25, ::25], case.kit.arrays[f"final/{i}/sem_seg_strided"], atol=1e-3, what=f"logits of image {i}")
        stats = [float(s) for s in (full.mean(), full.std(), full.min(), full.max())]
        close(stats, case.kit.arrays[f"final/{i}/sem_seg_stats"], rtol=1e-4, atol=1e-4, what=f"stats of image {i}")
        expected = case.kit.arrays[f"final/{i}/sem_seg_argmax"]
        assert (full.argmax(dim=0).numpy() != expected).mean() <= FLIPPED
        assert (semantic_map(logits_NChw[i].numpy(), stride(case), size, out) != expected).mean() <= FLIPPED


def test_panoptic_maps(case: Case) -> None:
    """The same segments in the same order, and the same pixels."""
    if not isinstance(case.found, Panoptic):
        pytest.skip(f"{case.kit.name} has no panoptic maps")
    cfg = translate(case.options)
    assert cfg.kind == "panoptic_fpn"
    combine = cfg.combine
    out_sizes_N2 = torch.from_numpy(case.kit.arrays["inputs/out_hw"])
    found = merge(
        case.found, stride(case), case.images.sizes_N2, out_sizes_N2, combine.overlap, combine.stuff_area, combine.score
    )
    for i, (_, (height, width)) in enumerate(sizes(case)):
        segments = json.loads(str(case.kit.arrays[f"final/{i}/panoptic_segments_json"]))
        count = int(found.count_N[i])
        assert found.labels_NS[i, :count].tolist() == [segment["category_id"] for segment in segments]
        assert found.thing_NS[i, :count].tolist() == [segment["isthing"] for segment in segments]
        assert (found.labels_NS[i, count:] == -1).all()
        ids_HW = found.ids_NHW[i, :height, :width].numpy()
        assert (ids_HW != case.kit.arrays[f"final/{i}/panoptic_seg"]).mean() <= FLIPPED
        for segment in segments:
            if "area" in segment:
                assert np.isclose((ids_HW == segment["id"]).sum(), segment["area"], rtol=1e-3, atol=2)
