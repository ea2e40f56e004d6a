"""A flow as a command: what all of them do around it."""

import signal
import sys
from collections.abc import Callable

from flows.repro import CHECKOUT
from flows.server import prefect_api
from pipeline.errors import UserError
from pipeline.layout import Layout


def as_command(check: Callable[[], object], job: Callable[[], int]) -> int:
    """Run `job` with an API of Prefect's to talk to; returns the exit status. `check` comes first: a mistake is told at once."""
    # An exit that runs Prefect's last steps and ends its server: a plain SIGTERM would not.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        check()
        with prefect_api(Layout(CHECKOUT)):
            return job()
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was left half-written, and the same command takes up what was finished", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
