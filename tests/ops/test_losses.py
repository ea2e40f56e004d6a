"""Overlaps and focal loss: against torchvision, finite differences, and extreme logits."""

import pytest
import torch

import ops_cuda


def boxes(count: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, dtype=dtype, generator=generator) * 20
    return torch.cat([corner, corner + torch.rand(count, 2, dtype=dtype, generator=generator) * 15 + 0.5], 1)


def test_iou_equals_torchvision() -> None:
    from torchvision.ops import box_iou

    a, b = boxes(30, 0), boxes(40, 1)
    torch.testing.assert_close(ops_cuda.box_iou(a, b), box_iou(a, b))


def test_iou_without_area_is_zero() -> None:
    point = torch.tensor([[3.0, 3, 3, 3]])
    assert ops_cuda.box_iou(point, point).item() == 0


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_generalised_iou_equals_torchvision(kind: str) -> None:
    from torchvision import ops

    a, b = boxes(30, 0), boxes(30, 1)
    expected = getattr(ops, {"giou": "generalized_box_iou", "diou": "distance_box_iou", "ciou": "complete_box_iou"}[kind])(a, b)
    torch.testing.assert_close(ops_cuda.aligned_box_iou(a, b, kind), expected.diagonal(), atol=1e-5, rtol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["iou", "ioa", "giou", "diou", "ciou"])
def test_the_op_of_pairs_is_the_expression(kind: str) -> None:
    a, b = boxes(4, 0).view(2, 2, 4), boxes(3, 1).view(1, 3, 4)
    assert torch.equal(torch.ops.detectline.box_iou_pairs(a, b, kind), ops_cuda.box_iou(a, b, kind))  # type: ignore[arg-type]
    leaves = [boxes(3, seed, torch.float64).requires_grad_() for seed in (0, 1)]
    assert kind in ("iou", "ioa") or torch.autograd.gradcheck(
        lambda *given: ops_cuda.aligned_box_iou(*given, "diou" if kind == "ciou" else kind),  # ciou: its weight has no gradient
        leaves,
    )


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (-1.0, 1.5), (0.7, 0.0)])
def test_focal_loss_gradient(alpha: float, gamma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(6, 5, dtype=torch.float64, generator=generator) * 3).requires_grad_()
    targets = torch.randint(0, 2, (6, 5), generator=generator).double()
    assert torch.autograd.gradcheck(lambda x: ops_cuda.sigmoid_focal_loss(x, targets, alpha, gamma), logits)


def test_focal_loss_equals_torchvision() -> None:
    from torchvision.ops import sigmoid_focal_loss

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 7, generator=generator) * 4
    targets = torch.randint(0, 2, (50, 7), generator=generator).float()
    torch.testing.assert_close(ops_cuda.sigmoid_focal_loss(logits, targets, 0.25, 2.0), sigmoid_focal_loss(logits, targets))


def test_focal_loss_of_extreme_logits_is_finite() -> None:
    logits = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4]).repeat(2, 1).requires_grad_()
    targets = torch.tensor([[0.0], [1.0]]).expand(2, 5)
    loss = ops_cuda.sigmoid_focal_loss(logits, targets, 0.25, 2.0)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and logits.grad is not None and torch.isfinite(logits.grad).all()


def test_class_focal_loss_is_the_sum_over_one_hot_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(3, 8, 5, dtype=torch.float64, generator=generator) * 3).requires_grad_()
    classes = torch.randint(-2, 5, (3, 8), generator=generator)
    targets = torch.zeros(3, 8, 6, dtype=torch.float64)
    targets.scatter_(2, classes.clamp(min=-1).remainder(6).unsqueeze(2), 1)
    per_element = ops_cuda.sigmoid_focal_loss(logits, targets[..., :5], 0.25, 2.0)
    wanted = per_element[classes != -2].sum()
    (slope,) = torch.autograd.grad(wanted, logits)
    found = ops_cuda.class_focal_loss(logits, classes, 0.25, 2.0)
    fused, fused_slope = torch.ops.detectline.class_focal_loss(logits, classes, 0.25, 2.0)
    torch.testing.assert_close(torch.stack([found, fused]), wanted.expand(2))
    torch.testing.assert_close(torch.autograd.grad(found, logits)[0], slope)
    torch.testing.assert_close(fused_slope, slope)
    torch.testing.assert_close(torch.autograd.grad(3 * fused, logits)[0], 3 * slope)


def test_opcheck() -> None:
    logits, targets = torch.randn(4, 3, requires_grad=True), torch.zeros(4, 3)
    torch.library.opcheck(torch.ops.detectline.sigmoid_focal_loss.default, (logits, targets, 0.25, 2.0))
    classes = torch.tensor([0, 2, -1, -2])
    torch.library.opcheck(torch.ops.detectline.class_focal_loss.default, (logits, classes, 0.25, 2.0))
    first, second = boxes(4, 0).view(2, 2, 4), boxes(3, 1).view(1, 3, 4)
    torch.library.opcheck(torch.ops.detectline.box_iou_pairs.default, (first, second, "giou"))
