"""python -m pipeline config [--check] [overrides]: write the settings snapshot params.yaml, or check that it is fresh.

A source on another machine is listed into source.json, through which DVC sees whether it changed. `--check` asks no server.
"""

from collections.abc import Sequence

from pipeline import settings
from pipeline.data.config import LISTING
from pipeline.data.fetching import record_source
from pipeline.errors import ConfigError
from pipeline.layout import Layout


def run(arguments: Sequence[str]) -> None:
    """Write params.yaml from conf/ and the overrides; with `--check` fail (UserError) when it is stale instead."""
    if "--check" in arguments:
        if len(arguments) > 1:
            raise ConfigError(
                "--check", None, "stands alone: it compares params.yaml with the overrides that it was written with"
            )
        settings.check_params()
        return
    chosen = settings.write_params(arguments)
    print(f"{settings.PARAMS} holds what conf/ composes to" + (f" with {' '.join(arguments)}" if arguments else ""))
    listing = record_source(chosen.dataset, chosen.storage, Layout())
    if listing is not None:
        print(f"{LISTING} lists what is there now: {len(listing.objects)} objects, {listing.size / 1e6:.1f} MB")
