"""What the tests of this folder share: the default wishes, and costs that need no measuring."""

from typing import Any

import pydantic
import yaml

from pipeline.advice.config import AdviseConfig
from pipeline.advice.measure import Measured
from pipeline.advice.table import Advice
from tests.detector.models import CONF

WANTED: Any = pydantic.TypeAdapter(AdviseConfig).validate_python(
    yaml.safe_load((CONF.parent / "advise/default.yaml").read_text())
)


def cheap(cfg: Any, height: int, width: int, batch: int) -> Measured:
    """Costs in proportion to pixels, as a machine has them."""
    pixels = height * width
    return Measured(1e-6 * pixels * batch, 2e-7 * pixels, int(5e8 + 4e2 * pixels * batch))


def setting(advice: Advice, key: str) -> str:
    return next(o.partition("=")[2] for o in advice.overrides() if o.startswith(f"{key}="))
