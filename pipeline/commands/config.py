"""python -m pipeline config [--check] [overrides]: write the settings snapshot params.yaml, or check that it is fresh."""

from collections.abc import Sequence

from pipeline import settings


def run(arguments: Sequence[str]) -> None:
    """Write params.yaml from conf/ and the overrides; with `--check` fail (UserError) when it is stale instead."""
    if "--check" in arguments:
        settings.check_params()
        return
    settings.write_params(arguments)
    print(f"{settings.PARAMS} holds what conf/ composes to" + (f" with {' '.join(arguments)}" if arguments else ""))
