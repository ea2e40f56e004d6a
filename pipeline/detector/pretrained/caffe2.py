"""ImageNet backbones under Caffe2's names, as MSRA's R-50.pkl and Detectron's have them, under ours.

The naming, as Detectron documents it: `res2_0_branch2a_w` is the weight of stage res2, block 0, first convolution; branch2b and
2c the next, branch1 the shortcut; `_bn_s` and `_bn_b` scale and shift of its norm (statistics folded into them, or given as `_rm`
and `_riv`); `conv1_w` with `res_conv1_bn_s` the stem; `fc1000_*` the classifier.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

LAYERS = {"branch1": "shortcut", "branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3"}
PARTS = {
    "w": "weight",
    "b": "bias",
    "bn_s": "norm.weight",
    "bn_b": "norm.bias",
    "bn_rm": "norm.running_mean",
    "bn_riv": "norm.running_var",
    "gn_s": "norm.weight",
    "gn_b": "norm.bias",
}
BESIDE = re.compile(r"(fc\d+|pred)_[wb]|.*_momentum|lr|weight_order|model_iter")
"""The classifier, and what an optimiser left."""


def is_caffe2(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are Caffe2's of a ResNet."""
    return "conv1_w" in state and any(name.startswith("res2_0_branch2a_") for name in state)


def from_caffe2(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Parameters by our names below `bottom_up`, and the names that have no place there.

    Norms without statistics get mean 0 and variance 1. A convolution's bias beside its norm has no place: one of zeros is left
    out, another keeps its name for the loader to list.
    """
    renamed: dict[str, Tensor] = {}
    unused = []
    for name, value in state.items():
        if BESIDE.fullmatch(name):
            unused.append(name)
            continue
        new = _renamed(name)
        if new.endswith(("conv1.bias", "conv2.bias", "conv3.bias", "shortcut.bias")) and not value.any():
            unused.append(name)
            continue
        renamed[new] = value
    for name, value in list(renamed.items()):
        if name.endswith(".norm.weight") and f"{name.removesuffix('weight')}running_mean" not in renamed:
            renamed[f"{name.removesuffix('weight')}running_mean"] = torch.zeros_like(value)
            renamed[f"{name.removesuffix('weight')}running_var"] = torch.ones_like(value)
    return renamed, tuple(unused)


def _renamed(name: str) -> str:
    if stem := re.fullmatch(r"(?:res_)?conv1_(\w+)", name):
        return f"stem.conv1.{PARTS[stem[1]]}" if stem[1] in PARTS else name
    if block := re.fullmatch(r"res(\d)_(\d+)_(branch\w+?)_(\w+)", name):
        stage, number, layer, part = block.groups()
        if layer in LAYERS and part in PARTS:
            return f"res{stage}.{number}.{LAYERS[layer]}.{PARTS[part]}"
    return name
