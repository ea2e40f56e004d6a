"""python -m pipeline config [--check] [overrides]: write the settings snapshot params.yaml, or check that it is fresh."""

from collections.abc import Sequence

from pipeline import settings
from pipeline.errors import ConfigError


def run(arguments: Sequence[str]) -> None:
    """Write params.yaml from conf/ and the overrides; with `--check` fail (UserError) when it is stale instead."""
    if "--check" in arguments:
        if len(arguments) > 1:
            raise ConfigError(
                "--check", None, "stands alone: it compares params.yaml with the overrides that it was written with"
            )
        settings.check_params()
        return
    settings.write_params(arguments)
    print(f"{settings.PARAMS} holds what conf/ composes to" + (f" with {' '.join(arguments)}" if arguments else ""))
