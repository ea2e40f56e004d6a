"""Settings of evaluation. No torch."""

from typing import Literal

from pipeline.errors import ConfigError
from pipeline.schema import schema


@schema
class EvaluateConfig:
    """How a detector is measured, and what the report shows."""

    engine: Literal["hotcoco", "pycocotools"]
    """Who counts: hotcoco is fast, pycocotools is the judge; the tests hold their numbers equal."""
    split: str
    """The split of data/validated to measure on."""
    batch: int
    """Pictures per forward pass. Larger ones fill a GPU; pictures of a batch are padded to its largest."""
    max_detections: int
    """Best detections per picture and class that count; COCO's published numbers use 100."""
    keypoint_sigma: float
    """Spread of a keypoint as a share of its object's scale (the square root of its area), where the names are not COCO's 17,
    whose published spreads hold. Similarity falls to 0.61 at twice this distance: COCO's are 0.025 (eyes) to 0.107 (hips)."""
    drawing_score: float
    """Least score of the detections that the report draws and rates pictures by. Metrics take all detections."""
    sheet: int
    """Pictures on the report's sheet, truth beside prediction: half of them the worst, half the best. 0 leaves the sheet out."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError("evaluate.batch", self.batch, "must be 1 or more")
        if self.max_detections < 10:
            raise ConfigError("evaluate.max_detections", self.max_detections, "must be 10 or more; COCO's is 100")
        if self.keypoint_sigma <= 0:
            raise ConfigError("evaluate.keypoint_sigma", self.keypoint_sigma, "must be above 0; 0.05 suits most")
        if not 0 <= self.drawing_score <= 1:
            raise ConfigError("evaluate.drawing_score", self.drawing_score, "is a score: 0 to 1")
        if self.sheet < 0:
            raise ConfigError("evaluate.sheet", self.sheet, "must be 0 (no sheet) or a number of pictures")
