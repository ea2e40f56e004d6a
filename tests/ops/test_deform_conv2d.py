"""Deformable convolution against its definition written as loops, against a plain convolution, and in ONNX Runtime."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ops_cuda


def by_definition(x: np.ndarray, offset: np.ndarray, weight: np.ndarray, mask: np.ndarray | None, geometry: tuple) -> np.ndarray:
    """One sum per output cell, written from Dai et al. 2017 (equation 2) and Zhu et al. 2019 (equation 1)."""
    stride, padding, dilation, groups = geometry
    n, c, height, width = x.shape
    k, per_group, kh, kw = weight.shape
    _, channels, rows, columns = offset.shape
    offset_groups = channels // (2 * kh * kw)

    def read(image: np.ndarray, y: float, x: float) -> float:
        top, left, total = int(np.floor(y)), int(np.floor(x)), 0.0
        for at_y, at_x in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            if 0 <= at_y < height and 0 <= at_x < width:
                total += image[at_y, at_x] * (1 - abs(y - at_y)) * (1 - abs(x - at_x))
        return total

    out = np.zeros((n, k, rows, columns))
    for index in np.ndindex(n, k, rows, columns, per_group, kh, kw):
        image, output, row, column, own, i, j = index
        channel = output // (k // groups) * per_group + own
        group = channel // (c // offset_groups)
        tap = group * kh * kw + i * kw + j
        at_y = row * stride - padding + i * dilation + offset[image, 2 * tap, row, column]
        at_x = column * stride - padding + j * dilation + offset[image, 2 * tap + 1, row, column]
        value = weight[output, own, i, j] * read(x[image, channel], at_y, at_x)
        out[image, output, row, column] += value * (1 if mask is None else mask[image, tap, row, column])
    return out


def given(geometry: tuple[int, int, int, int], offset_groups: int, modulated: bool) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    stride, padding, dilation, groups = geometry
    rows, columns = ((side + 2 * padding - 2 * dilation - 1) // stride + 1 for side in (6, 7))

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, weight = random(2, 4, 6, 7), random(8, 4 // groups, 3, 3)
    offset = 2 * random(2, offset_groups * 18, rows, columns)
    return x, offset, weight, random(2, offset_groups * 9, rows, columns).sigmoid() if modulated else None


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize(("geometry", "offset_groups"), [((1, 1, 1, 1), 1), ((2, 1, 1, 2), 2), ((1, 2, 2, 4), 4)])
def test_equals_its_definition(geometry: tuple[int, int, int, int], offset_groups: int, modulated: bool) -> None:
    x, offset, weight, mask = given(geometry, offset_groups, modulated)
    expected = by_definition(*(None if v is None else v.numpy() for v in (x, offset, weight, mask)), geometry)
    np.testing.assert_allclose(ops_cuda.deform_conv2d(x, offset, weight, mask, *geometry), expected, atol=1e-10)


@pytest.mark.parametrize("modulated", [False, True])
def test_gradients_are_those_of_finite_differences(modulated: bool) -> None:
    values = given((2, 1, 1, 2), 2, modulated)
    leaves = [None if value is None else value.requires_grad_() for value in values]
    torch.autograd.gradcheck(lambda *v: ops_cuda.deform_conv2d(*v, 2, 1, 1, 2), leaves, fast_mode=True)


def test_without_offsets_it_is_a_convolution() -> None:
    x, offset, weight, _ = given((2, 1, 1, 2), 2, False)
    expected = torch.nn.functional.conv2d(x, weight, None, 2, 1, 1, 2)
    torch.testing.assert_close(ops_cuda.deform_conv2d(x, torch.zeros_like(offset), weight, None, 2, 1, 1, 2), expected)


def test_one_dtype_for_all() -> None:
    """Half types are the float32 result, rounded."""
    x, offset, weight, mask = (value.bfloat16() for value in given((1, 1, 1, 1), 1, True))
    found = ops_cuda.deform_conv2d(x, offset, weight, mask, 1, 1, 1, 1)
    exact = ops_cuda.deform_conv2d(x.float(), offset.float(), weight.float(), mask.float(), 1, 1, 1, 1)
    assert torch.equal(found, exact.bfloat16())
    with pytest.raises(TypeError, match=r"are of torch\.bfloat16, torch\.float32; convert"):
        ops_cuda.deform_conv2d(x, offset.float(), weight, mask, 1, 1, 1, 1)


def test_offsets_that_are_no_number_read_nothing() -> None:
    """As the kernels do. torchvision's CPU operator ends the process there, so a diverged training died without a word."""
    x, offset, weight, mask = given((1, 1, 1, 1), 1, True)
    broken, far = offset.clone(), offset.clone()
    broken[0, :, 0], far[0, :, 0] = torch.nan, 1e6
    broken[1, 2:4], far[1, 2:4] = torch.inf, 1e6
    results = []
    for offsets in (broken, far):
        leaves = [value.clone().requires_grad_() for value in (x, offsets, weight, mask)]
        y = ops_cuda.deform_conv2d(*leaves, 1, 1, 1, 1)
        results.append((y, *torch.autograd.grad(y.square().sum(), leaves)))
    for found, wanted in zip(*results, strict=True):
        assert found.isfinite().all()
        torch.testing.assert_close(found, wanted)


def test_fake_and_registration_agree_with_the_op() -> None:
    x, offset, weight, mask = given((2, 1, 1, 1), 1, True)
    for modulation in (None, mask):
        inputs = [v if v is None else v.float().requires_grad_() for v in (x, weight, offset, modulation)]
        torch.library.opcheck(torch.ops.detectline.deform_conv2d.default, (*inputs, 2, 1, 1, 1))


class _Layer(nn.Module):
    def forward(self, x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        return ops_cuda.deform_conv2d(x, offset, weight, mask, 2, 1, 1, 2)


@pytest.mark.parametrize("modulated", [False, True])
def test_onnx_runtime_gives_the_same(tmp_path: Path, modulated: bool) -> None:
    import onnxruntime

    inputs = tuple(value.float() for value in given((2, 1, 1, 2), 2, modulated) if value is not None)
    program = torch.onnx.export(
        _Layer().eval(),
        inputs,
        dynamo=True,
        opset_version=20,
        custom_translation_table=ops_cuda.onnx_translations(),
        verbose=False,
    )
    program.save(tmp_path / "deform.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "deform.onnx")
    feed = {node.name: value.numpy() for node, value in zip(session.get_inputs(), inputs, strict=True)}
    np.testing.assert_allclose(session.run(None, feed)[0], _Layer()(*inputs), atol=1e-5)
