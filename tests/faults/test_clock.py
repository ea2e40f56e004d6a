"""The clock jumps while a schedule is in force: faked where Prefect's scheduler reads it, never on the machine."""

import asyncio
import datetime
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
import yaml

pytestmark = [pytest.mark.faults]
START = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
Hours = tuple[float, ...]


async def scheduled(url: str, cron: str, hours: Hours, monkeypatch: pytest.MonkeyPatch) -> list[list[datetime.datetime]]:
    """When runs are due, in order, after each of the scheduler's rounds; the rounds take place `hours` after START."""
    from prefect.server import models, schemas
    from prefect.server.database import provide_database_interface
    from prefect.server.services import scheduler
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings

    clock = [START]
    monkeypatch.setattr(scheduler, "now", lambda *_: clock[0])
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: url}):
        db = provide_database_interface()
        await db.create_db()
        async with db.session_context(begin_transaction=True) as session:
            flow = await models.flows.create_flow(session=session, flow=schemas.core.Flow(name="line"))
            schedule = schemas.schedules.CronSchedule(cron=cron, timezone="UTC")
            action = schemas.core.DeploymentSchedule(schedule=schedule, active=True)
            deployment = schemas.core.Deployment(name="nightly", flow_id=flow.id, schedules=[action])
            made = await models.deployments.create_deployment(session=session, deployment=deployment)
            identity: UUID = made.id
        seen = []
        for hour in hours:
            clock[0] = START + datetime.timedelta(hours=hour)
            seen.append(await one_round(db, scheduler, identity))
        return seen


async def one_round(db: object, scheduler: object, deployment: UUID) -> list[datetime.datetime]:
    """One round of the scheduler; the times of all runs that stand in the tables then."""
    import sqlalchemy
    from prefect.server import models

    limits = {"min_scheduled_time": datetime.timedelta(hours=1), "min_runs": 3, "max_runs": 100}
    async with db.session_context(begin_transaction=True) as session:  # type: ignore[attr-defined]
        runs = await scheduler._collect_flow_runs(  # type: ignore[attr-defined]
            db, session, [deployment], max_scheduled_time=datetime.timedelta(days=100), **limits
        )
        await models.deployments._insert_scheduled_flow_runs(session=session, runs=runs)
    async with db.session_context() as session:  # type: ignore[attr-defined]
        found = await session.execute(sqlalchemy.select(db.FlowRun.next_scheduled_start_time))  # type: ignore[attr-defined]
        return sorted(moment for (moment,) in found.all())


@pytest.fixture
def rounds(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[datetime.datetime]]]:
    """The schedule of prefect.yaml's deployment `nightly` in the scheduler's hands."""
    deployments = yaml.safe_load((root / "prefect.yaml").read_text())["deployments"]
    cron = next(one["schedules"][0]["cron"] for one in deployments if one["name"] == "nightly")

    def run(*hours: float) -> list[list[datetime.datetime]]:
        url = f"sqlite+aiosqlite:///{tmp_path / 'prefect.db'}"
        return asyncio.run(scheduled(url, cron, hours, monkeypatch))

    return run


def night(number: int) -> datetime.datetime:
    """Three o'clock, so many days after START's next night."""
    return datetime.datetime(2026, 3, 2 + number, 3, tzinfo=datetime.UTC)


def test_clock_jumps(rounds: Callable[..., list[list[datetime.datetime]]], note: Callable[[str, str, str], None]) -> None:
    """Forward by ten days, then back to where it was: no night twice, none made up for the days that never were."""
    first, ahead, back, on = rounds(0, 240, 0.1, 24)
    assert first == [night(0), night(1), night(2)]
    assert ahead == [*first, night(10), night(11), night(12)], "nights that the jump left out are not made up for"
    assert back == ahead, "each night that is due again is the run it was"
    assert on == sorted([*ahead, night(3)]), "and the nights between are filled in as they come"
    assert len(set(on)) == len(on)
    note(
        "The clock jumps ten days ahead and back, under a schedule", "no night runs twice", "nights left out are not made up for"
    )
