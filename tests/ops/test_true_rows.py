"""Rows to keep, as the traced graph lists them."""

import torch

import ops_cuda


def test_zero_then_every_true_entry() -> None:
    flags = torch.tensor([False, True, False, True, True])
    assert ops_cuda.true_rows(flags).tolist() == [0, 1, 3, 4]
    assert ops_cuda.true_rows(~flags).tolist() == [0, 0, 2]
    assert ops_cuda.true_rows(torch.zeros(3, dtype=torch.bool)).tolist() == [0]


def test_opcheck() -> None:
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.detectline.true_rows.default, (torch.tensor([True, False, True]),), test_utils=tests)
