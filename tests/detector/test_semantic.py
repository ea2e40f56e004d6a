"""Semantic and panoptic detectors: what is learnt, what is left out, every norm, and their ONNX files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.deploy.onnx import export_onnx
from pipeline.deploy.replay import replayable
from pipeline.detector.build import build_detector
from pipeline.detector.config import PanopticFPNConfig, SemanticFPNConfig
from pipeline.detector.detector import Detector
from pipeline.detector.part import WHOLE
from pipeline.detector.pretrained.detectron2.options import Options
from pipeline.detector.pretrained.detectron2.semantic import semantic_settings
from pipeline.detector.semantic_head import SemanticHead
from pipeline.detector.semantic_maps import merge, picture_logits
from pipeline.errors import ConfigError
from pipeline.predict.panoptic import Merging, merged, semantic_map
from pipeline.predict.postprocess import to_picture
from tests.detector.models import batch, lively, read_config

SEMANTIC = 3
"""Classes of the maps, as many as of objects: `lively` makes it so."""


def semantic() -> SemanticFPNConfig:
    cfg = read_config("semantic_fpn_tiny")
    assert isinstance(cfg, SemanticFPNConfig)
    return cfg


def panoptic() -> PanopticFPNConfig:
    cfg = read_config("panoptic_fpn_tiny")
    assert isinstance(cfg, PanopticFPNConfig)
    return cfg


def head(norm: str = "none", ignore: int = 255, stride: int = 4, levels: tuple[str, ...] = ("p2", "p3", "p4")) -> SemanticHead:
    torch.manual_seed(0)
    options = {"conv_channels": 32, "common_stride": stride, "norm": norm, "ignore_value": ignore, "loss_weight": 0.5}
    return SemanticHead(levels, 8, SEMANTIC, **options)  # type: ignore[arg-type]


def features(sides: int = 16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {f"p{2 + k}": torch.randn(2, 8, sides >> k, sides >> k, generator=generator) for k in range(3)}


@pytest.mark.parametrize("norm", ["none", "group", "batch", "frozen", "sync", "layer"])
def test_parameters_have_the_references_names(norm: str) -> None:
    """Level p<n> has a convolution at every second place (one alone at the common stride), each with its norm or a bias."""
    names = {name for name, _ in head(norm).named_parameters()}
    places = ["p2.0", "p3.0", "p4.0", "p4.2"]
    assert {f"{place}.weight" for place in places} | {"predictor.weight", "predictor.bias"} <= names
    assert {f"{place}.bias" in names for place in places} == {norm == "none"}
    assert {f"{place}.norm.weight" in names for place in places} == {norm not in ("none", "frozen")}


@pytest.mark.parametrize(("stride", "steps"), [(4, [0, 1, 2]), (2, [1, 2, 3])])
def test_levels_meet_at_the_common_stride(stride: int, steps: list[int]) -> None:
    model = head(stride=stride)
    assert [sum(isinstance(m, torch.nn.Upsample) for m in model.get_submodule(level)) for level in model.levels] == steps
    assert model.detect(features()).logits_NChw.shape == (2, SEMANTIC, 64 // stride, 64 // stride)


@pytest.mark.parametrize("ignore", [255, 2])
def test_the_loss_is_the_mean_over_pixels_that_count(ignore: int) -> None:
    """Against numpy over single pixels; neither ignored class adds to it, nor to the gradient."""
    model, given = head(ignore=ignore), features()
    target = torch.randint(0, SEMANTIC + 1, (2, 64, 64), generator=torch.Generator().manual_seed(2))
    target = torch.where(target == SEMANTIC, 255, target)
    losses = model.losses(given, target, WHOLE)
    full = functional.interpolate(model.detect(given).logits_NChw, scale_factor=4, mode="bilinear", align_corners=False)
    logits, wanted = full.detach().double().permute(0, 2, 3, 1).numpy(), target.numpy()
    counted = (wanted != 255) & (wanted != ignore)
    log_sum = np.log(np.exp(logits).sum(axis=-1))
    own = np.take_along_axis(logits, np.where(counted, wanted, 0)[..., None], axis=-1)[..., 0]
    assert float(losses.terms["loss_sem_seg"]) == pytest.approx(0.5 * (log_sum - own)[counted].mean(), rel=1e-5)


def test_a_batch_that_teaches_nothing_has_no_loss_and_every_gradient() -> None:
    model = head("group")
    losses = model.losses(features(), torch.full((2, 64, 64), 255), WHOLE)
    losses.total().backward()
    assert float(losses.total()) == 0 and losses.finite_N.all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_halves_of_a_batch_add_up_to_the_whole() -> None:
    """Ranks with different numbers of counted pixels: each divides by the mean count."""
    model, given = head("none"), features()
    target = torch.randint(0, SEMANTIC, (2, 64, 64))
    target[1, 10:] = 255
    whole = model.losses(given, target, WHOLE).terms["loss_sem_seg"]
    count = (target != 255).sum()
    part = replace(WHOLE, pictures=2, processes=2, sum=lambda _: count)
    halves = [
        model.losses({k: v[n : n + 1] for k, v in given.items()}, target[n : n + 1], part).terms["loss_sem_seg"] for n in (0, 1)
    ]
    torch.testing.assert_close(sum(halves) / 2, whole)


def test_the_instance_weight_scales_boxes_and_masks_alone() -> None:
    cfg, terms = panoptic(), []
    cfg = replace(cfg, rpn=replace(cfg.rpn, sample=replace(cfg.rpn.sample, order="first")))
    cfg = replace(cfg, roi=replace(cfg.roi, sample=replace(cfg.roi.sample, order="first")))
    for weight in (1.0, 0.25):
        model = lively(replace(cfg, instance_weight=weight))
        terms.append(model.losses(*batch(model, [(64, 64)])).terms)
    for name in terms[0]:
        factor = 0.25 if name in ("loss_box_reg", "loss_mask") else 1.0
        torch.testing.assert_close(terms[1][name], terms[0][name] * factor)
    assert {"loss_cls", "loss_box_reg", "loss_mask", "loss_sem_seg", "loss_rpn_cls", "loss_rpn_loc"} == terms[0].keys()


def test_targets_without_maps_are_refused() -> None:
    model = lively(semantic())
    images, targets = batch(model, [(64, 64)])
    with pytest.raises(ValueError, match="no semantic maps"):
        model.losses(images, replace(targets, semantic_NHW=None))


def test_settings_that_do_not_fit_stop_by_name() -> None:
    cfg = semantic()
    for field, value, said in (
        ("common_stride", 8, "semantic.common_stride"),
        ("common_stride", 3, "power of two"),
        ("channels", 20, "multiple of 32"),
        ("levels", ("p2", "p7"), "semantic.levels"),
    ):
        with pytest.raises(ConfigError, match=said):
            replace(cfg, semantic=replace(cfg.semantic, **{field: value}))
    with pytest.raises(ConfigError, match="masks"):
        replace(panoptic(), roi=replace(panoptic().roi, mask=None))
    with pytest.raises(ConfigError, match="semantic_classes"):
        build_detector(cfg, 3)


OPTIONS = {
    "MODEL.SEM_SEG_HEAD.NAME": "SemSegFPNHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["p4", "p2"],
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": 0,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 19,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 64,
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 2,
    "MODEL.SEM_SEG_HEAD.NORM": "BN",
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": 0.3,
}


def test_every_option_of_the_head_is_translated() -> None:
    given = Options(OPTIONS)
    assert semantic_settings(given) == {
        "levels": ["p2", "p4"],
        "channels": 64,
        "common_stride": 2,
        "norm": "batch",
        "ignore_value": 0,
        "loss_weight": 0.3,
    }
    assert not given.unread
    with pytest.raises(ConfigError, match="PointRendSemSegHead"):
        semantic_settings(Options(OPTIONS | {"MODEL.SEM_SEG_HEAD.NAME": "PointRendSemSegHead"}))
    with pytest.raises(ConfigError, match=r"SEM_SEG_HEAD\.NORM"):
        semantic_settings(Options(OPTIONS | {"MODEL.SEM_SEG_HEAD.NORM": "IN"}))


@pytest.mark.parametrize("out", [(64, 96), (40, 50), (150, 133)])
def test_the_numpy_maps_equal_torchs(out: tuple[int, int]) -> None:
    """Upsampled, cut, resized, in that order; the batch's own padding does not show."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(SEMANTIC, 18, 26, generator=generator)
    full = picture_logits(logits, 4, (61, 90), out)
    step = functional.interpolate(logits[None], scale_factor=4, mode="bilinear", align_corners=False)[..., :61, :90]
    torch.testing.assert_close(full, functional.interpolate(step, size=out, mode="bilinear", align_corners=False)[0])
    found = semantic_map(logits.numpy(), 4, (61, 90), out)
    best = full.topk(2, dim=0).values
    sure = (best[0] - best[1] > 1e-5).numpy()
    assert sure.mean() > 0.99 and (found == full.argmax(0).numpy())[sure].all()


def test_merging_in_torch_equals_merging_in_numpy() -> None:
    model = lively(panoptic())
    images, _ = batch(model, [(64, 64), (50, 40)])
    with torch.no_grad():
        found = model.detect(images)
    out = torch.tensor([[90, 80], [50, 40]])
    rule = Merging(0.5, 30.0, 0.3, tuple(range(11, 10 + SEMANTIC)))
    together = merge(found, 4, images.sizes_N2, out, rule.overlap, rule.stuff_area, rule.score)  # type: ignore[arg-type]
    raw = {name: values.numpy() for name, values in found.named().items()}
    assert int(together.count_N.min()) > 1 and together.thing_NS.any()
    for n, (height, width) in enumerate(out.tolist()):
        size, count = tuple(images.sizes_N2[n].tolist()), int(raw["count"][n])
        classes = semantic_map(raw["semantic"][n], 4, size, (height, width))  # type: ignore[arg-type]
        boxes, kept = to_picture(raw["boxes"][n, :count], size, (height, width))  # type: ignore[arg-type]
        rows = [raw[name][n, :count][kept] for name in ("masks", "scores", "labels")]
        own = merged(rows[0], boxes, rows[1], rows[2], classes, rule)
        number = int(together.count_N[n])
        assert [(s.thing, s.label) for s in own.listed] == list(
            zip(together.thing_NS[n, :number].tolist(), together.labels_NS[n, :number].tolist(), strict=True)
        )
        assert (own.ids_HW != together.ids_NHW[n, :height, :width].numpy()).mean() < 0.001


@pytest.fixture(scope="module", params=["semantic", "panoptic"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path]:
    model, path = lively(semantic() if request.param == "semantic" else panoptic()), tmp_path_factory.mktemp("onnx") / "d.onnx"
    export_onnx(model, path, opset=20)
    return model, path


@pytest.mark.parametrize("sizes", [[(64, 64)], [(96, 64), (50, 33), (90, 61)]], ids=str)
def test_onnx_equals_torch(exported: tuple[Detector, Path], sizes: list[tuple[int, int]]) -> None:
    import onnxruntime

    model, path = exported
    images, _ = batch(model, sizes)
    with torch.no_grad():
        expected = model.detect(images).named()
    session = onnxruntime.InferenceSession(path)
    assert [output.name for output in session.get_outputs()] == list(expected)
    found = session.run(None, {"pixels": images.pixels_N3HW.numpy(), "sizes": images.sizes_N2.numpy()})
    assert expected["semantic"].std() > 0.05
    for value, (name, wanted) in zip(found, expected.items(), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=0, atol=1e-3, err_msg=name)


def test_the_ends_that_quantization_watches_include_the_predictor(exported: tuple[Detector, Path]) -> None:
    import onnx

    ends = replayable(onnx.load(exported[1])).ends
    assert "sem_seg_head.predictor.weight" in ends
    assert not {"sem_seg_head.p2.0.weight", "sem_seg_head.p3.0.weight"} & ends.keys()
