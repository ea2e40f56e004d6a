"""python benchmarks/screenshots.py: docs/{mlflow-compare,prefect-run}.png, from a real browser, of two runs that it makes.

Needs Debian's chromium on the PATH. Starts the services of make serve, runs the deployment twice with other settings (minutes, on
64-pixel shapes), photographs MLflow's comparison of the two and Prefect's page of the second, and stops what it started.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(CHECKOUT))  # run from a checkout, never installed

from flows.server import START_SECONDS
from pipeline.process import running
from tests.stages.tiny import TINY

SETTINGS = [
    *(override for override in TINY if override not in ("tracking=off", "train.validate_every=0")),
    *("train.validate_every=40", "train.log_every=5", "quantize.held_loss=0.1", "export.gate.int8_ap=0.1"),
]
RATES = ("0.002", "0.0005")
CHARTS = "train/loss$|train/val/bbox/AP$|evaluate/bbox/AP(50)?$"
"""What MLflow's search for charts takes: a regular expression over their names."""


def main() -> None:
    """Make both pictures."""
    chromium = shutil.which("chromium") or sys.exit("chromium: not on the PATH; apt install chromium")
    log = CHECKOUT / "work/services/screenshots.log"
    log.unlink(missing_ok=True)
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with running([sys.executable, "-m", "infra.local"], log, env=environment, cwd=CHECKOUT, grace=60) as services:
        prefect_url, mlflow_url = addresses(log, services)
        flow_runs = [run(rate, prefect_url) for rate in RATES]
        photograph(chromium, prefect_url, mlflow_url, flow_runs)


def addresses(log: Path, services: subprocess.Popen[bytes]) -> tuple[str, str]:
    """Of Prefect and MLflow, as soon as the services say so."""
    deadline = time.monotonic() + START_SECONDS
    while "Ctrl-C" not in (said := log.read_text() if log.exists() else ""):
        if services.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the services did not start:\n{said}")
        time.sleep(0.5)
    return tuple(re.search(rf"{name}\s+(http\S+)", said).group(1) for name in ("Prefect", "MLflow"))


def run(rate: str, prefect_url: str) -> str:
    """The id of a run of the deployment at this learning rate, when it is done."""
    overrides = json.dumps([*SETTINGS, f"train.optimizer.lr={rate}"])
    words = ["prefect", "deployment", "run", "line/line", "--param", f"overrides={overrides}", "--watch"]
    environment = os.environ | {"PREFECT_API_URL": f"{prefect_url}/api"}
    said = subprocess.run(
        [sys.executable, "-m", *words], env=environment, capture_output=True, text=True, cwd=CHECKOUT, check=True
    )
    print(said.stdout)
    return re.search(r"UUID: (\S+)", said.stdout).group(1)


def photograph(chromium: str, prefect_url: str, mlflow_url: str, flow_runs: list[str]) -> None:
    """Open the pages as a person would and save what they show."""
    import mlflow
    from playwright.sync_api import sync_playwright

    mlflow.set_tracking_uri(mlflow_url)
    experiment = mlflow.get_experiment_by_name("detectline").experiment_id
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1300})
        page.goto(f"{mlflow_url}/#/experiments/{experiment}/runs?compareRunsMode=CHART")
        page.get_by_role("button", name="Close").first.click(timeout=30_000)  # the assistant's panel
        page.get_by_placeholder("Search metric charts").fill(CHARTS)
        page.wait_for_timeout(8_000)
        page.screenshot(path=CHECKOUT / "docs/mlflow-compare.png")
        page.set_viewport_size({"width": 1400, "height": 900})
        page.goto(f"{prefect_url}/runs/flow-run/{flow_runs[-1]}")
        page.get_by_text("Artifacts", exact=True).first.click()
        page.wait_for_timeout(5_000)
        page.screenshot(path=CHECKOUT / "docs/prefect-run.png")
        browser.close()


if __name__ == "__main__":
    main()
