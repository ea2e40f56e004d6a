"""Made-up observations: pictures with a level of their own, so that the objects on one picture are alike."""

import numpy as np

from pipeline.monitor.config import MonitorConfig
from pipeline.monitor.observations import Observations

STATISTICS = ("embedding", "scores", "classes", "sizes", "objects", "brightness", "contrast", "sharpness")


def config(**changed: object) -> MonitorConfig:
    """Quick settings."""
    values: dict[str, object] = {
        "detector": "local",
        "splits": ("val",),
        "statistics": STATISTICS,
        "false_alarms": 0.05,
        "permutations": 399,
        "least": 10,
        "most": 1000,
        "score": 0.5,
        "low_score": 0.05,
        "unusual": 2,
        "emit": False,
    }
    return MonitorConfig(**(values | changed))  # type: ignore[arg-type]


def pictures(
    rng: np.random.Generator,
    count: int = 40,
    *,
    objects: float = 6,
    last: float = 0.2,
    score: float = 0.0,
    size: float = 0.0,
    looks: tuple[float, float, float] = (0, 0, 0),
    embedding: float = 0.0,
) -> Observations:
    """`count` pictures; each argument shifts what one statistic sees, by its own deviation between pictures."""
    per_N = rng.poisson(objects, count) + 1
    picture_V = np.repeat(np.arange(count), per_N)
    level_N = rng.normal(0, 0.05, count)
    of_last_N = np.clip(rng.normal(last, 0.15, count), 0, 1)
    vector_NE = rng.normal(0, 1, (count, 12))
    vector_NE[:, 0] += embedding
    drawn_V = rng.random(len(picture_V))
    return Observations(
        names=tuple(f"{number}.png" for number in range(count)),
        looks_N3=rng.normal(0, 1, (count, 3)) + looks,
        embedding_NE=vector_NE.astype(np.float32),
        picture_V=picture_V,
        score_V=np.clip(0.75 + 0.05 * score + level_N[picture_V] + rng.normal(0, 0.01, len(picture_V)), 0.5, 1),
        label_V=np.where(drawn_V < of_last_N[picture_V], 2, (drawn_V * 1000).astype(int) % 2),
        size_V=0.3 + 0.05 * size + level_N[picture_V] + rng.normal(0, 0.01, len(picture_V)),
    )
