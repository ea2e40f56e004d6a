"""python -m pipeline champion [--fetch] [--json] [overrides]: which detector is in service, and with --fetch its files."""

import json
from collections.abc import Sequence

from pipeline import settings
from pipeline.commands.promote import Registered, champion_folder
from pipeline.layout import Layout

OPTIONS = ("--fetch", "--json")


def run(arguments: Sequence[str]) -> None:
    """Print the champion's version, what it was trained on and its AP; its files go to work/champion.

    Without a champion it says so; as JSON that is null.
    """
    chosen, layout = settings.load([word for word in arguments if word not in OPTIONS]), Layout()
    values = found(chosen, layout, fetch="--fetch" in arguments)
    if "--json" in arguments:
        print(json.dumps(values))
    elif values is None:
        print(f"models:/{chosen.tracking.model}@{chosen.retrain.alias}: there is no champion yet")
    else:
        print("\n".join(f"{name:<17} {value}" for name, value in values.items()))


def found(chosen: settings.Settings, layout: Layout, fetch: bool) -> dict[str, str] | None:
    """What is known of the champion; None without one, or without tracking."""
    from mlflow.tracking import MlflowClient

    from pipeline import registry
    from pipeline.tracking import absolute_uri

    if not chosen.tracking.enabled:
        return None
    uri, model = absolute_uri(chosen.tracking.uri, layout.root), chosen.tracking.model
    client = MlflowClient(uri, uri)
    current = registry.version_at(client, model, chosen.retrain.alias)
    if current is None:
        return None
    values = {"version": str(current.version), **dict(sorted(current.tags.items()))}
    if fetch:
        champion = Registered(values["version"], dict(current.tags))
        folder = registry.fetch(uri, model, champion.version, champion_folder(layout, champion))
        values["folder"] = str(folder.absolute())
    return values
