"""How many planted faults the checks find, and how often they speak of data that nobody spoiled."""

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from benchmarks.faults.draft import Place, Real, drafted
from benchmarks.faults.planter import Planter
from pipeline.labels.check import Check, Severity
from pipeline.labels.checks import build_checks
from pipeline.labels.columns import Columns, Finding
from pipeline.labels.limits import Limits

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Recall:
    """What became of the planted faults of one kind."""

    planted: Counter[str] = field(default_factory=Counter)
    """By the way of planting."""
    found: Counter[str] = field(default_factory=Counter)
    """Those that the kind's own check named."""
    elsewhere: int = 0
    """Missed by it, but another check named the same label or picture, which it had not named before."""

    def share(self) -> float:
        """Found of all planted."""
        return self.found.total() / self.planted.total() if self.planted else float("nan")

    def missed(self) -> list[str]:
        """The ways of planting that were not always found, the worst first."""
        ways = [(self.found[way] / count, way, count) for way, count in self.planted.items() if self.found[way] < count]
        return [f"{way}: {self.found[way]} of {count}" for _, way, count in sorted(ways)]


def shipped() -> tuple[list[Check], Limits]:
    """All checks that conf/validate/default.yaml does not ignore, with its limits."""
    values = yaml.safe_load((ROOT / "conf/validate/default.yaml").read_text())
    limits = Limits(**values["limits"])
    return build_checks({code: Severity(value) for code, value in values["severity"].items()}, limits), limits


def run(checks: Sequence[Check], data: Columns) -> list[Finding]:
    """All findings, as validate lists them."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return [finding for check in checks for finding in data.listed(check.find(data))]


def measure(
    planter: Planter, reals: dict[str, Real], known: dict[str, list[Finding]], checks: Sequence[Check], seed: int
) -> Recall:
    """Plant the fault in each of its datasets, as often as it says, and look for it; `known` are the findings without it."""
    result = Recall()
    for name in planter.sets:
        for number in range(planter.rounds):
            rng = np.random.default_rng([seed, number, zlib.crc32(f"{planter.code} {name}".encode())])
            with drafted(reals[name], rng) as draft:
                places = planter.plant(draft)
                after = run(checks, draft.columns())
            judge(result, places, planter.code, known[name], after)
    return result


def judge(result: Recall, places: Iterable[Place], code: str, before: list[Finding], after: list[Finding]) -> None:
    """Count the places that `after` names and `before` did not: one that was faulty already proves nothing."""
    known = {(finding.code, *_about(finding)) for finding in before}
    new = [finding for finding in after if (finding.code, *_about(finding)) not in known]
    own, others = _index(finding for finding in new if finding.code == code), _index(f for f in new if f.code != code)
    flagged = _index(finding for finding in before if finding.code == code)
    for place in places:
        if not place.says and _named(place, flagged) and not _named(place, own):
            continue
        result.planted[place.kind] += 1
        if _named(place, own):
            result.found[place.kind] += 1
        elif not place.says and _named(place, others):
            result.elsewhere += 1


Index = dict[tuple[str | None, str | int | None], list[Finding]]


def _about(finding: Finding) -> tuple[object, ...]:
    whole = finding.image is None and finding.annotation is None
    return finding.split, finding.image, finding.annotation, finding.reason if whole else ""


def _index(findings: Iterable[Finding]) -> Index:
    """By label (split, id), by picture (None, name), and (None, None) for those about the dataset."""
    found: Index = {}
    for finding in findings:
        key = (finding.split, finding.annotation) if finding.annotation is not None else (None, finding.image)
        found.setdefault(key, []).append(finding)
    return found


def _named(place: Place, index: Index) -> bool:
    """Whether one of the findings is about the place."""
    if place.annotation is not None:
        return any((place.split, one) in index for one in (place.annotation, *place.twins))
    if place.image is not None:
        return any((None, one) in index for one in (place.image, *place.twins))
    return any(place.says in finding.reason and place.split in (None, finding.split) for finding in index.get((None, None), ()))
