"""The device a stage runs on, and what makes a seed give the same bytes there."""

import random

import numpy as np
import torch

from pipeline.errors import ConfigError
from pipeline.training.config import ComputeConfig


def prepare_device(cfg: ComputeConfig, seed: int, place: int = 0, processes: int = 1) -> torch.device:
    """Set threads and seeds and return the device. ConfigError when it asks for CUDA and there is none.

    The device is the `place`-th of `processes` on this machine. On CPU equal seeds and equal thread counts give equal bytes.
    """
    if cfg.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.device", "cuda", "but torch sees no CUDA device here; use compute=cpu, or check the driver")
    torch.set_num_threads(cfg.threads_each(processes))
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    # Not use_deterministic_algorithms: that one imports the compiler, 20 s here, to say the same to it.
    torch.set_deterministic_debug_mode("error" if cfg.device == "cpu" else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid that writes every fresh tensor twice
    if cfg.device == "cpu":
        return torch.device("cpu")
    if place >= torch.cuda.device_count():
        rule = f"is more than the {torch.cuda.device_count()} CUDA devices here; 0 starts one process per device"
        raise ConfigError("compute.processes", processes, rule)
    torch.cuda.set_device(place)
    return torch.device("cuda", place)
