"""Several ranks inside a test: forked, so that nobody pays the imports again, and a training on pictures made up by position."""

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pipeline.data.annotations import PolygonPool
from pipeline.data.loader import Batch, Sample, collate
from pipeline.data.sampler import StepSampler
from pipeline.data.truths import Truths
from pipeline.detector.build import build_detector
from pipeline.detector.config import ModelConfig
from pipeline.training.config import Augment, Sgd, Steps, TrainConfig
from pipeline.training.distributed import ALONE, Ranks, joined
from pipeline.training.loop import train
from pipeline.training.sync_norm import sync_norms

CONFIG = TrainConfig(
    steps=5,
    batch=4,
    accumulate=1,
    precision="float32",
    sync_norm=False,
    ema=0.0,
    optimizer=Sgd(kind="sgd", lr=0.08, momentum=0.9, weight_decay=0.0001),
    schedule=Steps(kind="steps", warmup=0, milestones=(0.5,), factor=0.5),
    clip=5.0,
    augment=Augment(flip=0.0, scale=(1.0, 1.0), crop=0.0, crop_least=1.0),
    repeat_rare=None,
    validate_every=0,
    log_every=1,
    checkpoint_every=0,
)


def picture(position: int, empty: Callable[[int], bool]) -> Sample:
    """The picture at a position of the stream: its size, pixels and objects are its own."""
    chance = np.random.default_rng(position)
    height, width = (int(side) for side in chance.integers(40, 96, 2))
    pixels = chance.integers(0, 256, (3, height, width)).astype(np.uint8)
    count = 0 if empty(position) else int(chance.integers(1, 5))
    corner = chance.random((count, 2)) * [width - 30, height - 30]
    boxes = np.concatenate([corner, corner + 10 + chance.random((count, 2)) * 20], axis=1).astype(np.float32)
    outlines = boxes[:, [0, 1, 2, 1, 2, 3]].reshape(-1, 2).astype(np.float64)  # half of each box
    pool = PolygonPool(outlines, np.arange(count + 1) * 3, np.arange(count + 1))
    return Sample(pixels, Truths(boxes, chance.integers(0, 3, count), pool), f"{position}.png")


def weights_after(
    model_cfg: ModelConfig, cfg: TrainConfig, ranks: Ranks = ALONE, empty: Callable[[int], bool] = lambda _: False
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Weights and last figures of a training of the model on these pictures."""
    torch.manual_seed(0)
    model = build_detector(model_cfg, 3)
    if cfg.sync_norm and ranks.count > 1:
        sync_norms(model)
    last: dict[str, float] = {}

    def batches(sampler: StepSampler) -> Iterator[Batch]:
        for part in sampler:
            made = collate([picture(position, empty) for position in part], model.divisor)
            assert isinstance(made, Batch)
            yield made

    train(model, batches, cfg, torch.device("cpu"), 3, lambda _, figures: last.update(figures), lambda *_: {}, ranks)
    return {name: value.detach().clone() for name, value in model.state_dict().items()}, last


def forked(count: int, work: Callable[[Ranks], object], folder: Path) -> list[object]:
    """What `work` returns on each of `count` ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def rank(number: int) -> None:
        os.environ |= {"RANK": str(number), "WORLD_SIZE": str(count), "LOCAL_RANK": str(number), "LOCAL_WORLD_SIZE": str(count)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
        torch.set_num_threads(1)  # more would hang in a forked process
        with joined("cpu") as ranks:
            torch.save(work(ranks), folder / f"rank{number}.pt")
            ranks.wait()

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=rank, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * count
    return [torch.load(folder / f"rank{number}.pt", weights_only=True) for number in range(count)]


def frozen(cfg: ModelConfig) -> ModelConfig:
    """The model with norms that learn nothing and see no batch."""
    return replace(cfg, backbone=replace(cfg.backbone, norm="frozen"))


def furthest(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    """Largest difference between two sets of weights."""
    return max(float((one[name].double() - two[name].double()).abs().max()) for name in one)
