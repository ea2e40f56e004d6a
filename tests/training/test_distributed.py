"""Two ranks with half the pictures each learn what one learns from all of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.detector.config import FasterRCNNConfig, ModelConfig
from pipeline.training.distributed import ALONE, Ranks
from tests.detector.models import tiny_masks, tiny_one_stage, tiny_two_stage
from tests.training.ranks import CONFIG, forked, frozen, furthest, weights_after

pytestmark = pytest.mark.line  # ranks are forked, which torch forbids once a test before them has used autograd's threads
MODELS = {"faster_rcnn": lambda: sampling(200), "mask_rcnn": lambda: sampling(200, tiny_masks()), "retinanet": tiny_one_stage}
"""200 is more than there are candidates: how many regions a picture gives then depends on the picture."""
PICTURES: dict[str, Callable[[int], bool]] = {
    "objects everywhere": lambda _: False,
    "no object on the second rank": lambda position: position % 4 >= 2,
}


def sampling(count: int, model: FasterRCNNConfig | None = None) -> ModelConfig:
    """The two-stage model with samples of so many regions."""
    model = model or tiny_two_stage()
    return replace(model, roi=replace(model.roi, sample=replace(model.roi.sample, count=count)))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("empty", PICTURES)
@pytest.mark.parametrize("kind", MODELS)
def test_two_ranks_learn_what_one_learns(kind: str, empty: str, tmp_path: Path) -> None:
    model, cfg = frozen(MODELS[kind]()), CONFIG
    if kind == "mask_rcnn":  # at the full rate a ReLU comes within rounding of zero in the second step, and falls to either side
        cfg = replace(CONFIG, optimizer=replace(CONFIG.optimizer, lr=0.05))
    start, _ = weights_after(model, replace(CONFIG, steps=1, optimizer=replace(CONFIG.optimizer, lr=1e-12)))
    one, figures = weights_after(model, cfg, empty=PICTURES[empty])
    first, second = forked(2, lambda ranks: weights_after(model, cfg, ranks, PICTURES[empty]), tmp_path)
    assert furthest(one, start) > 1e-2
    assert furthest(first[0], one) <= 1e-5
    assert furthest(first[0], second[0]) == 0
    shared = [name for name in figures if "per_second" not in name and "mask_rcnn/" not in name]  # shares: the ranks' mean
    expected = {name: figures[name] for name in shared}
    assert {name: first[1][name] for name in shared} == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert second[1] == {}  # rank 0 alone logs


@pytest.mark.parametrize("kind", MODELS)
def test_counts_that_a_rank_keeps_to_itself_are_noticed(kind: str, tmp_path: Path) -> None:
    """The fault that the proof is for, planted: each rank divides by its own number of samples."""
    model, empty = frozen(MODELS[kind]()), PICTURES["no object on the second rank"]

    class Alone(Ranks):
        def sum(self, count: torch.Tensor) -> torch.Tensor:
            return count * self.count

    def selfish(ranks: Ranks) -> object:
        return weights_after(model, CONFIG, Alone(ranks.rank, ranks.count, hosts=ranks.hosts), empty)

    one, _ = weights_after(model, CONFIG, empty=empty)
    assert furthest(forked(2, selfish, tmp_path)[0][0], one) > 1e-4


@pytest.mark.parametrize("kind", ["faster_rcnn", "retinanet"])
def test_passes_learn_what_one_batch_teaches(kind: str) -> None:
    """For the two-stage model with samples that are always full: their number is not known ahead of the later passes."""
    model = frozen(sampling(8) if kind == "faster_rcnn" else tiny_one_stage())
    one, figures = weights_after(model, CONFIG)
    two, _ = weights_after(model, replace(CONFIG, accumulate=2))
    if kind == "faster_rcnn":
        assert figures["train/roi_head/num_fg_samples"] + figures["train/roi_head/num_bg_samples"] == 8
    assert furthest(one, two) <= 1e-5


def test_ranks_and_passes_together(tmp_path: Path) -> None:
    model, cfg = frozen(tiny_one_stage()), replace(CONFIG, batch=8)
    one, _ = weights_after(model, cfg)
    both = forked(2, lambda ranks: weights_after(model, replace(cfg, accumulate=2), ranks), tmp_path)
    assert furthest(both[0][0], one) <= 1e-5


def test_synced_norms_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    model: ModelConfig = tiny_two_stage()
    cfg = replace(CONFIG, sync_norm=True, steps=2)
    one, _ = weights_after(model, cfg, ALONE)
    synced = forked(2, lambda ranks: weights_after(model, cfg, ranks), tmp_path)
    assert furthest(synced[0][0], one) <= 1e-5
    apart = forked(2, lambda ranks: weights_after(model, replace(cfg, sync_norm=False), ranks), tmp_path)
    assert furthest(apart[0][0], one) > 1e-3


def test_bfloat16_is_close_to_float32_and_another() -> None:
    model = frozen(tiny_two_stage())
    cfg = replace(CONFIG, steps=1)
    (_, full), (weights, half) = weights_after(model, cfg), weights_after(model, replace(cfg, precision="bfloat16"))
    assert half["train/loss"] == pytest.approx(full["train/loss"], rel=0.05) and half["train/loss"] != full["train/loss"]
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}
