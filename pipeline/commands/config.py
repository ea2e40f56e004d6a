"""python -m pipeline config [--check | --source] [overrides]: write the settings snapshot params.yaml, or check that it is fresh.

A source on another machine is listed into source.json, through which DVC sees whether it changed; `--source` does that again for
the settings that params.yaml has. `--check` asks no server.
"""

from collections.abc import Sequence

from pipeline import settings
from pipeline.data.config import LISTING
from pipeline.data.fetching import record_source
from pipeline.errors import ConfigError
from pipeline.layout import Layout


def run(arguments: Sequence[str]) -> None:
    """Write params.yaml from conf/ and the overrides, and source.json for a remote source.

    `--check` fails (UserError) when params.yaml is stale instead; `--source` writes source.json alone.
    """
    for option in {"--check", "--source"} & {*arguments}:
        if len(arguments) > 1:
            raise ConfigError(option, None, "stands alone: it takes params.yaml with the overrides that it was written with")
    if "--check" in arguments:
        settings.check_params()
        return
    if "--source" in arguments:
        chosen = settings.load()
    else:
        chosen = settings.write_params(arguments)
        print(f"{settings.PARAMS} holds what conf/ composes to" + (f" with {' '.join(arguments)}" if arguments else ""))
    listing = record_source(chosen.dataset, chosen.storage, Layout())
    if listing is not None:
        print(f"{LISTING} lists what is there now: {len(listing.objects)} objects, {listing.size / 1e6:.1f} MB")
    elif "--source" in arguments:
        print(f"dataset.source={chosen.dataset.source} is a path: DVC watches it by itself")
