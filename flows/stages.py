"""Single stages as a Prefect flow, on a machine that shares nothing with others: `flows/exchange.py` with Prefect's eyes on it.

The work pool `nodes` runs it in the first of several pods; the others run `python -m flows.exchange` beside it.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))  # run from a checkout, never installed

from pipeline.quiet import be_offline

be_offline()  # before Prefect reads the environment

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows.exchange import publish, receive
from flows.repro import CHECKOUT
from flows.stage import run_stage
from pipeline.errors import UserError


@flow(name="stages", persist_result=False, retries=3, retry_delay_seconds=20)
def stages(names: list[str], branch: str) -> str | State[Any]:
    """Bring the stages `names` up to date by the settings on `branch` of origin, and put the record of it there.

    Inputs and results go through DVC's default remote. It is tried again by Prefect: a machine that is lost takes a training on
    several machines down, and the next try goes on from its newest checkpoint. Returns the commit.
    """
    say = get_run_logger().info
    try:
        receive(CHECKOUT, branch)
        for name in names:
            state = run_stage.with_options(name=name, task_run_name=name)(name, CHECKOUT, {}, None, True, return_state=True)
            if not state.is_completed():
                raise UserError(state.message or f"{name}: ended as {state.name}")
        return publish(CHECKOUT, branch, names, say)
    except UserError as error:
        return Failed(message=str(error))  # an exception would come with Prefect's stack trace
