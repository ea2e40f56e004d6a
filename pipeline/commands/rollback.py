"""python -m pipeline rollback [why=TEXT] [overrides]: put the champion back that was in service before the present one."""

from collections.abc import Sequence

from pipeline import settings
from pipeline.errors import ConfigError, UserError
from pipeline.layout import Layout


def run(arguments: Sequence[str]) -> None:
    """Move the alias `retrain.alias` back, mark the version that goes, and print the audit log.

    UserError when there is no champion, or none before it.
    """
    from mlflow.tracking import MlflowClient

    from pipeline import registry
    from pipeline.tracking import absolute_uri

    why = next((word.removeprefix("why=") for word in arguments if word.startswith("why=")), "")
    chosen = settings.load([word for word in arguments if not word.startswith("why=")])
    if not chosen.tracking.enabled:
        raise ConfigError("tracking.enabled", False, "leaves no registry to roll back in; use tracking=sqlite or tracking=server")
    uri, model, alias = absolute_uri(chosen.tracking.uri, Layout().root), chosen.tracking.model, chosen.retrain.alias
    client = MlflowClient(uri, uri)
    current = registry.version_at(client, model, alias)
    if current is None:
        raise UserError(f"models:/{model}@{alias}: there is no champion; `python -m pipeline promote` makes the first")
    before = registry.previous(client, model, alias)
    if before is None:
        raise UserError(f"models:/{model}@{alias} is version {current.version}, and none was in service before it")
    client.set_model_version_tag(model, str(current.version), registry.ROLLED_BACK, why or "no reason given")
    registry.move(client, model, alias, str(current.version), before, "rollback", why or "no reason given")
    print(f"models:/{model}@{alias} is version {before} again, no longer {current.version}")
    for one in registry.history(client, model):
        print(f"  {one.time}  {one.action:<8}  {one.before or '-'} -> {one.version}  {one.who}  {one.why}")
