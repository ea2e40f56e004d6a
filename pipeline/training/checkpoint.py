"""Checkpoints: files from which a stopped training goes on as if nothing had happened."""

import hashlib
import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.files import write_atomically

KEPT = 2
"""The newest, and one to fall back to when it is damaged."""
_DIGEST = 32


class Checkpoints:
    """The checkpoints in one folder, `step-00000040.pt` and so on: a digest of the content, then torch's format.

    Files appear whole or not at all, and one whose digest does not fit is left out. Loading executes nothing. The folder must
    belong to one process at a time: hold a lock on it.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every

    def due(self, step: int, last: int) -> bool:
        """Whether to write one after `step`; after the last step the result itself is written."""
        return bool(self.every) and step % self.every == 0 and step < last

    def write(self, step: int, content: bytes) -> None:
        """Keep `content`, which is `packed`, as the state after `step` steps; drop the oldest."""
        write_atomically(self.folder / f"step-{step:08d}.pt", _digest(content) + content)
        for old in self._files()[KEPT:]:
            old.unlink()

    def newest(self) -> bytes | None:
        """Content of the newest whole checkpoint, for `read`; None without one. Says which files are damaged."""
        for path in self._files():
            content = path.read_bytes()
            if _digest(content[_DIGEST:]) == content[:_DIGEST]:
                return content[_DIGEST:]
            print(f"train: {path} is damaged and left out", flush=True)
        return None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"), reverse=True)


def packed(state: dict[str, Any]) -> bytes:
    """`state` (tensors, numbers, text, lists and dicts of them) as the content of a checkpoint."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def read(content: bytes) -> dict[str, Any]:
    """The state that was `packed`, on the CPU."""
    state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    return state


def random_states() -> dict[str, Any]:
    """States of every global random generator of this process, as plain values."""
    version, numbers, gauss = random.getstate()
    numpy_state: dict[str, Any] = np.random.get_state(legacy=False)
    states = {
        "python": [version, list(numbers), gauss],
        "numpy": {**numpy_state, "state": {"key": numpy_state["state"]["key"].tolist(), "pos": int(numpy_state["state"]["pos"])}},
        "torch": torch.get_rng_state(),
    }
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def set_random_states(states: dict[str, Any]) -> None:
    """Put `random_states` back."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    inner = states["numpy"]["state"]
    np.random.set_state({**states["numpy"], "state": {"key": np.array(inner["key"], np.uint32), "pos": inner["pos"]}})
    torch.set_rng_state(states["torch"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST // 2).hexdigest().encode()
