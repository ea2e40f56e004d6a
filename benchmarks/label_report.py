"""python benchmarks/label_report.py: docs/label-report.jpg, the upper part of a page of label checks.

Draws shapes, plants a few faults of some kinds in their labels (see benchmarks/faults), and photographs the page that validate
makes of them. Needs Debian's chromium on the PATH.
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.faults.draft import Real, drafted
from benchmarks.faults.registry import PLANTERS
from pipeline import settings
from pipeline.data.dataset import open_dataset
from pipeline.labels.validation import validate
from pipeline.layout import Layout
from pipeline.stages import ingest
from pipeline.stages.validate import write_reports

PLANTED = ("box-near-duplicate", "box-partly-outside", "mask-self-crossing", "box-sliver", "image-near-empty")
OVERRIDES = ("dataset.size=256", "dataset.train=40", "dataset.val=12", "validate.page.pictures=4")
SIZE = {"width": 1300, "height": 1950}


def main() -> None:
    """Make the picture."""
    chromium = shutil.which("chromium") or sys.exit("chromium: not on the PATH; apt install chromium")
    chosen = settings.load(OVERRIDES)
    with TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        stage: Any = SimpleNamespace(dataset=chosen.dataset, storage=chosen.storage, seed=chosen.seed, layout=layout)
        ingest.run(stage)
        real = Real("shapes", layout.dataset, chosen.validate.limits.max_pixels)
        with drafted(real, np.random.default_rng(3)) as draft:
            for code in PLANTED:
                PLANTERS[code].plant(draft)
            draft.columns()  # writes the label files
            write_reports(layout.reports("validate"), validate(open_dataset(draft.folder), chosen.validate), chosen.validate.page)
        photograph(chromium, layout.reports("validate") / "index.html", ROOT / "docs/label-report.jpg")


def photograph(chromium: str, page: Path, target: Path) -> None:
    """The page as a person would see it who opens it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport=SIZE)
        tab.goto(page.as_uri())
        tab.screenshot(path=target, type="jpeg", quality=80)
        browser.close()


if __name__ == "__main__":
    main()
