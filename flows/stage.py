"""One stage as one Prefect task: `dvc repro` of that stage in a child process, its output in the run's log as it comes.

DVC decides whether the stage is up to date and holds the locks; Prefect decides when it runs and whether it is tried again (its
own settings; nothing here retries or caches). Cancelling the task, or any other end of it, ends the whole process session.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.states import Failed

from flows.exchange import pull_inputs, push_results
from flows.repro import Outcome, bring_up_to_date
from pipeline.errors import UserError

SLOT_SECONDS = 60.0
"""How long a slot stays taken after its holder was killed; a live one renews it."""


@task(cache_policy=NO_CACHE, persist_result=False)
def run_stage(name: str, root: Path, extra: dict[str, str], slot: str | None, exchange: bool = False) -> Outcome | State[Any]:
    """Bring stage `name` of the dvc.yaml in `root` up to date; `extra` goes into its environment.

    It waits for the concurrency limit `slot` first, if one is named and the server has it: one GPU, one stage at a time.
    With `exchange` its inputs come from DVC's remote and its results go there (flows/exchange.py). A failed stage is a Failed
    state whose message is the stage's own: Prefect would print a stack trace for an exception.
    """
    say = get_run_logger().info
    try:
        if exchange:
            pull_inputs([name], root, say)
        with concurrency(slot, lease_duration=SLOT_SECONDS, strict=False) if slot else nullcontext():
            outcome = bring_up_to_date(name, root, extra, say, pull=exchange)
        if exchange and outcome != "pulled":
            push_results([name], root, say)
        return outcome
    except UserError as error:
        return Failed(message=str(error))
