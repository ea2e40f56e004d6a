"""Events that Prefect's automations listen to: `dataset.changed`, `dataset.drifted`."""

from collections.abc import Mapping
from typing import Any

from pipeline.errors import UserError

CHANGED, DRIFTED = "dataset.changed", "dataset.drifted"
RESOURCE = "detectline.dataset."
"""Begins the resource of every event; the dataset's name follows."""


def emit(event: str, resource: str, payload: Mapping[str, Any]) -> None:
    """Tell Prefect's server that `event` happened to `resource`. UserError when no server is named, or it does not answer.

    It waits until the server has the event: one that sits in a queue when the process ends would be lost.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.events import Event
    from prefect.events.schemas.events import Resource
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        raise UserError(
            f"{event}: no Prefect server is named, so nobody would hear of it\n"
            "  run this where `make serve` runs, or: prefect config set PREFECT_API_URL=http://HOST:4200/api"
        )
    told = Event(event=event, resource=Resource({"prefect.resource.id": resource}), payload=dict(payload))
    with get_client(sync_client=True) as client:
        try:
            answer = client._client.post("/events", json=[told.model_dump(mode="json")])
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise UserError(f"{event}: Prefect's server at {PREFECT_API_URL.value()} did not take it: {error}") from error
