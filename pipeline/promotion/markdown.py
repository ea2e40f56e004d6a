"""The decision for Prefect's page of the run. Imports nothing heavy: flows do."""

from typing import Any


def decision_markdown(decision: dict[str, Any]) -> str:
    """decision.json for Prefect's page of the run."""
    rules = decision["rules"]
    rows = [f"| {'yes' if rule['holds'] else '**no**'} | {rule['name']} | {rule['figure']} | {rule['limit']} |" for rule in rules]
    head = "Promoted" if decision["promoted"] else "Refused"
    detectors = decision["detectors"]
    return "\n".join(
        [
            f"# {head}: {' against '.join(map(str, detectors))}",
            "",
            "| holds | rule | measured | limit |",
            "|---|---|---|---|",
            *rows,
        ]
    )
