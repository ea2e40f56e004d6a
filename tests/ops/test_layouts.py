"""Results lie in memory as the ops' fakes say, however the arguments lie: compiled graphs compute addresses from that."""

import pytest
import torch

import ops_cuda  # noqa: F401  registers the ops
from tests.ops.cuda.samples import SAMPLES
from tests.ops.layouts import LAYOUTS, described, laid_out, said

pytestmark = pytest.mark.kernels


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_results_lie_as_their_fakes_say(name: str, layout: str) -> None:
    arguments = laid_out(SAMPLES[name](), layout)
    assert described(getattr(torch.ops.detectline, name)(*arguments)) == said(name, arguments)
