"""Settings of the box regression's loss: ours, or a user's own. No torch."""

from typing import Annotated

import pydantic

from pipeline.detector.settings import parts
from pipeline.detector.settings.custom import CustomBoxLossConfig

BoxLossConfig = Annotated[parts.BoxLossConfig | CustomBoxLossConfig, pydantic.Field(discriminator="kind")]
