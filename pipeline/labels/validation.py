"""Check, mend, check again until nothing that can be mended is left, and judge the result by the gate."""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Dataset
from pipeline.errors import GateError
from pipeline.labels.check import Check, Severity
from pipeline.labels.checks import build_checks
from pipeline.labels.columns import Columns, Finding, Findings
from pipeline.labels.config import Gate, ValidateConfig
from pipeline.labels.fixes import Change, applies, mend
from pipeline.labels.pictures import inspect

FEWEST = 10
"""Labels of a class from which on its share of errors is judged: of fewer, one would decide."""
What = Literal["annotations", "pictures"]


@dataclass(slots=True)
class Validation:
    """What checking and mending a dataset came to."""

    checks: list[Check]
    given: Columns
    """The dataset as it came."""
    found: list[Findings]
    """By check, in the dataset as it came."""
    findings: list[Finding]
    """The same as rows, by check, then split, picture and annotation; behind them what only showed after fixes (a class whose
    last training picture went)."""
    mended: Dataset
    changes: list[Change]
    remaining: list[Finding]
    """Findings about the dataset as a whole that the fixed version still has."""

    def bad_annotations(self) -> float:
        """Share of the annotations with a finding of severity error."""
        return _share(self._rows("annotations", Severity.ERROR), len(self.given.ids_A))

    def bad_pictures(self) -> float:
        """Share of the pictures with a finding of severity error about the picture itself, not about an annotation in it."""
        return _share(self._rows("pictures", Severity.ERROR), len(self.given.file_names))

    def metrics(self) -> dict[str, float]:
        """Flat, reproducible figures."""
        count = Counter(finding.code for finding in self.findings)
        after = self.mended.splits.values()
        return {
            "validate/images": len(self.given.file_names),
            "validate/annotations": len(self.given.ids_A),
            "validate/images_kept": sum(len(split.images) for split in after),
            "validate/annotations_kept": sum(len(split.annotations) for split in after),
            "validate/bad_annotations": self.bad_annotations(),
            "validate/bad_pictures": self.bad_pictures(),
            "validate/changes": len(self.changes),
            **{f"validate/findings/{check.code}": count[check.code] for check in self.checks},
        }

    def require(self, gate: Gate) -> None:
        """GateError when too much is faulty, or when the fixed dataset cannot be trained on or measured."""
        given = self.given
        self._require_share("annotations", "errors", gate.annotations, "annotations", len(given.ids_A))
        self._require_share("pictures", "errors", gate.pictures, "pictures", len(given.file_names))
        self._require_share("annotations", "warnings", gate.warned_annotations, "warned_annotations", len(given.ids_A))
        self._require_share("pictures", "warnings", gate.warned_pictures, "warned_pictures", len(given.file_names))
        for label, name in enumerate(given.dataset.classes):
            own_A = given.label_A == label
            if own_A.sum() < FEWEST:
                continue
            about = f"annotations of class {name}"
            self._require_share("annotations", "errors", gate.of_a_class, "of_a_class", int(own_A.sum()), own_A, about)
        stopping = [finding for finding in self.remaining if finding.severity == Severity.ERROR]
        if stopping:
            lines = "".join(f"\n  {finding.code}: {finding.reason}" for finding in stopping[:5])
            more = f"\n  and {len(stopping) - 5} more" if len(stopping) > 5 else ""
            accept = " ".join(f"validate.severity.{code}=warning" for code in sorted({finding.code for finding in stopping}))
            raise GateError(
                f"validate: after the fixes the dataset still cannot be trained on or measured:{lines}{more}\n"
                f"  mend the source, split it otherwise (dataset.split), or accept it by {accept}"
            )

    def _require_share(
        self,
        what: What,
        kind: Literal["errors", "warnings"],
        limit: float,
        key: str,
        total: int,
        counted: NDArray[np.bool_] | None = None,
        about: str | None = None,
    ) -> None:
        """GateError when more than `limit` of the `total` rows, those that are `counted`, have findings of a kind."""
        severity, lower = (Severity.ERROR, "warning") if kind == "errors" else (Severity.WARNING, "info")
        rows = self._rows(what, severity)
        if counted is not None:
            rows = {code: own[counted[own]] for code, own in rows.items()}
        share = _share(rows, total)
        if share > limit:
            counts = sorted(((len(own), code) for code, own in rows.items()), reverse=True)
            worst = ", ".join(f"{code} {count}" for count, code in counts[:3] if count)
            raise GateError(
                f"validate: {share:.1%} of the {about or what} have {kind}, the gate allows {limit:.1%}. Most: {worst}\n"
                "  look at reports/validate/index.html, then mend the source, lower the severity of a code"
                f" (validate.severity.{counts[0][1]}={lower}), or set validate.gate.{key}={math.ceil(share * 100) / 100:g}"
            )

    def _rows(self, what: What, severity: Severity) -> dict[str, NDArray[np.int64]]:
        """By code of that severity: the rows that its findings are about."""
        found = [one for one in self.found if one.check.severity == severity]
        if what == "annotations":
            return {one.check.code: one.annotation_F[one.annotation_F >= 0] for one in found}
        return {one.check.code: one.image_F[(one.annotation_F < 0) & (one.image_F >= 0)] for one in found}


def _share(rows: dict[str, NDArray[np.int64]], total: int) -> float:
    return len(np.unique(np.concatenate(list(rows.values())))) / total if rows and total else 0.0


def validate(
    dataset: Dataset,
    cfg: ValidateConfig,
    show: Callable[[int], None] = lambda done: None,
    network: tuple[int, int] | None = None,
) -> Validation:
    """Run every check on `dataset`, apply the fixes that `cfg.fix` allows, and repeat until nothing is left to mend.

    It ends: masks only shrink or change once, boxes and areas follow them, and where the fixes of a round change nothing the
    findings stay. Pictures are decoded once; `show` is told how many are done. `network`: see Columns.
    """
    checks = build_checks(cfg.severity, cfg.limits)
    inspections = inspect(dataset, cfg.limits.max_pixels, show)
    given = data = Columns(dataset, inspections, network)
    first = found = _found(checks, data)
    findings = before = _listed(data, first)
    known = set(map(_identity, findings))
    changes: list[Change] = []
    while any(len(one) and applies(one, cfg.fix) for one in found):
        dataset, inspections, made = mend(data, inspections, found, cfg.fix)
        if not made:
            break
        changes += made
        data = Columns(dataset, inspections, network)
        found = _found(checks, data)
        after = _listed(data, found)
        new = _unsaid(before, [finding for finding in after if _identity(finding) not in known], after)
        known.update(map(_identity, after))
        findings, before = findings + new, after
    remaining = [finding for finding in before if finding.image is None and finding.annotation is None]
    return Validation(checks, given, first, findings, dataset, changes, remaining)


def _found(checks: list[Check], data: Columns) -> list[Findings]:
    """What each check finds. Numbers of any size may come: what overflows is infinite, and not finite is what checks look for."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return [check.find(data) for check in checks]


def _listed(data: Columns, found: list[Findings]) -> list[Finding]:
    return [finding for findings in found for finding in data.listed(findings)]


def _unsaid(before: list[Finding], new: list[Finding], after: list[Finding]) -> list[Finding]:
    """The findings that are `new` after a fix, but for those that say in other numbers what no longer stands as it was."""
    still = set(map(_identity, after))
    gone = Counter(_wording(finding) for finding in before if _identity(finding) not in still)
    found = []
    for finding in new:
        if finding.image is None and finding.annotation is None and gone[_wording(finding)]:
            gone[_wording(finding)] -= 1
        else:
            found.append(finding)
    return found


def _wording(finding: Finding) -> tuple[str, str, str]:
    """What is said of the whole dataset, but for the numbers."""
    return finding.code, finding.split or "", re.sub(r"\d+(\.\d+)?", "#", finding.reason)


def _identity(finding: Finding) -> tuple[object, ...]:
    """Of the thing found; the reason may change with a fix (a picture's twin that is gone), except where it is all there is."""
    about = finding.annotation if finding.image or finding.annotation else finding.reason
    return finding.code, finding.split, finding.image, about
