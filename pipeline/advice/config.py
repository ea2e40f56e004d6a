"""Settings of `python -m pipeline advise`. No torch."""

from pipeline.errors import ConfigError
from pipeline.schema import schema
from pipeline.tasks import Task


@schema
class AdviseConfig:
    """What is wanted, what there is to run it, and the rules of thumb."""

    task: Task
    """What to find: bbox, segm, keypoints, semantic, panoptic, rotated or densepose."""
    memory_gb: float
    """Memory of the device that trains, in GB (10**9 bytes)."""
    latency_ms: float
    """Longest time for one picture, in milliseconds, measured on this machine."""
    models: tuple[str, ...]
    """Files of conf/model to choose from, best first; none: every one that does the task, the costliest first."""
    leave_out: tuple[str, ...]
    """Of those, files whose names contain one of these are left out."""
    object_px: float
    """Pixels a side that small objects should have in the network's picture."""
    small_quantile: float
    """Small objects: the share of truths that are no larger than them."""
    largest_upscale: float
    """Pictures are enlarged at most so much: more pixels hold no more detail."""
    recall_iou: float
    """A truth counts as reached by an anchor from this IoU on."""
    ratios: int
    """Height to width ratios per cell."""
    stuff_share: float
    """Stuff segments below this share of a picture are dropped from panoptic maps."""
    epochs: int
    """Times that training sees each picture."""
    least_steps: int
    """Steps of the shortest training, however few pictures."""
    largest_batch: int
    """Most pictures per step."""
    lr_at_16: float
    """Learning rate at 16 pictures per step, scaled linearly (Goyal et al. 2017)."""

    def __post_init__(self) -> None:
        for field in ("memory_gb", "latency_ms", "object_px", "largest_upscale", "epochs", "largest_batch", "lr_at_16", "ratios"):
            if getattr(self, field) <= 0:
                raise ConfigError(f"advise.{field}", getattr(self, field), "must be above 0")
        if not 0 < self.small_quantile < 1:
            raise ConfigError("advise.small_quantile", self.small_quantile, "must be in (0, 1)")
        if not 0 <= self.stuff_share < 1:
            raise ConfigError("advise.stuff_share", self.stuff_share, "must be in [0, 1)")
        if not 0 < self.recall_iou < 1:
            raise ConfigError("advise.recall_iou", self.recall_iou, "must be in (0, 1)")
