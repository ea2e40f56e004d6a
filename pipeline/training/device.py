"""The device a stage runs on, and what makes a seed give the same bytes there."""

import os
import random

import numpy as np
import torch

from pipeline.errors import ConfigError
from pipeline.training.config import ComputeConfig


def prepare_device(cfg: ComputeConfig, seed: int) -> torch.device:
    """Set threads and seeds and return the device. ConfigError when it asks for CUDA and there is none.

    On CPU equal seeds and equal thread counts give equal bytes.
    """
    if cfg.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.device", "cuda", "but torch sees no CUDA device here; use compute=cpu, or check the driver")
    torch.set_num_threads(threads(cfg))
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    # Not use_deterministic_algorithms: that one imports the compiler, 20 s here, to say the same to it.
    torch.set_deterministic_debug_mode("error" if cfg.device == "cpu" else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid that writes every fresh tensor twice
    return torch.device(cfg.device)


def threads(cfg: ComputeConfig) -> int:
    """CPU threads to use: as set, or every core this process may run on."""
    return cfg.threads or len(os.sched_getaffinity(0))
