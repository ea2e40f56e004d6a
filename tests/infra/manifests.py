"""What must hold of Kubernetes objects beyond their schema: names that are used exist, and pods may do what they must."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.infra.kustomize import Object, pods

SENSITIVE = re.compile(
    r"PASSWORD|(?<!AUTH_STRING_)SECRET|TOKEN|AUTH_STRING(?!_SECRET_(?:NAME|KEY)$)|ACCESS_KEY|SIGNING", re.IGNORECASE
)
"""Names of what must not be written down; where a Secret and its key are named, they may be."""
ADDRESS = re.compile(r"(?:\w+://)(?:[\w-]+@)?([a-z][a-z0-9-]*):(\d+)")
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+[\w.-]*")


def problems(objects: list[Object], secrets: Mapping[str, set[str]]) -> list[str]:
    """Everything wrong with `objects`, which are all there are; `secrets` are the keys of each Secret that the user makes."""
    found: list[str] = []
    for owner, pod in pods(objects):
        found += (f"{owner}: {wrong}" for wrong in (*confinement(pod["spec"]), *references(pod["spec"], objects, secrets)))
        if owner.split("/")[0] in ("Deployment", "StatefulSet"):
            found += (
                f"{owner}: {entry['name']} has no {probe}" for entry in pod["spec"]["containers"] for probe in missing(entry)
            )
    return found + list(selections(objects)) + list(accounts(objects)) + list(addresses(objects)) + list(literals(objects))


def missing(container: Object) -> Iterator[str]:
    """Probes that a container which serves does not have."""
    return (probe for probe in ("startupProbe", "readinessProbe", "livenessProbe") if probe not in container)


def confinement(pod: Object) -> Iterator[str]:
    """What a pod may do that it must not, and what it may use without a bound."""
    context = pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "may run as root"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "has no seccomp profile"
    for entry in pod["containers"]:
        own, resources = entry.get("securityContext", {}), entry.get("resources", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{entry['name']} may gain privileges"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{entry['name']} may write to its image"
        if not all({"cpu", "memory"} <= resources.get(kind, {}).keys() for kind in ("requests", "limits")):
            yield f"{entry['name']} has no requests or limits"
        if not PINNED.fullmatch(entry["image"]):
            yield f"{entry['name']}: {entry['image']} is not pinned"


def references(pod: Object, objects: list[Object], secrets: Mapping[str, set[str]]) -> Iterator[str]:
    """Names in a pod that nothing has."""
    maps = {made["metadata"]["name"]: made["data"].keys() for made in objects if made["kind"] == "ConfigMap"}
    claims = {made["metadata"]["name"] for made in objects if made["kind"] == "PersistentVolumeClaim"}
    claims |= {claim["metadata"]["name"] for made in objects for claim in made.get("spec", {}).get("volumeClaimTemplates", ())}
    volumes = claims | {volume["name"] for volume in pod.get("volumes", ())}
    for volume in pod.get("volumes", ()):
        if "configMap" in volume:
            yield from _names(volume["configMap"]["name"], volume["configMap"].get("items", ()), maps, "ConfigMap")
        if "secret" in volume:
            yield from _names(volume["secret"]["secretName"], volume["secret"].get("items", ()), secrets, "Secret")
        if "persistentVolumeClaim" in volume and volume["persistentVolumeClaim"]["claimName"] not in claims:
            yield f"no claim {volume['persistentVolumeClaim']['claimName']}"
    for entry in pod["containers"]:
        ports = {port["name"] for port in entry.get("ports", ())}
        yield from (f"no volume {mount['name']}" for mount in entry.get("volumeMounts", ()) if mount["name"] not in volumes)
        for source in entry.get("envFrom", ()):
            for kind, known in (("configMapRef", maps), ("secretRef", secrets)):
                if kind in source:
                    yield from _names(source[kind]["name"], (), known, kind)
        for variable in entry.get("env", ()):
            for kind, known in (("configMapKeyRef", maps), ("secretKeyRef", secrets)):
                if kind in variable.get("valueFrom", {}):
                    wanted = variable["valueFrom"][kind]
                    yield from _names(wanted["name"], (wanted,), known, kind)
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            port = entry.get(probe, {}).get("httpGet", {}).get("port")
            if port is not None and port not in ports:
                yield f"{probe} asks at a port {port}, which {entry['name']} does not have"


def _names(name: str, items: Any, known: Mapping[str, Any], kind: str) -> Iterator[str]:
    if name not in known:
        yield f"no {kind} {name}"
    else:
        yield from (f"{kind} {name} has no {item['key']}" for item in items if item["key"] not in known[name])


def selections(objects: list[Object]) -> Iterator[str]:
    """Selectors that select nothing, and ports of services that no pod behind them has."""
    labelled = [(owner, pod["metadata"]["labels"], pod["spec"]) for owner, pod in pods(objects)]
    for made in objects:
        name, spec = f"{made['kind']}/{made['metadata'].get('name')}", made.get("spec", {})
        if made["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            wanted = spec["selector"]["matchLabels"]
            own = [labels for owner, labels, _ in labelled if owner == name] or [labels for _, labels, _ in labelled]
            if not any(wanted.items() <= labels.items() for labels in own):
                yield f"{name}: its selector matches no pod"
        if made["kind"] == "StatefulSet" and not any(
            (other["kind"], other["metadata"].get("name")) == ("Service", spec["serviceName"]) for other in objects
        ):
            yield f"{name}: no Service {spec['serviceName']}"
        if made["kind"] == "Service":
            # the place in an Indexed Job is a label that Kubernetes sets
            wanted = {key: value for key, value in spec["selector"].items() if not key.startswith("batch.kubernetes.io/")}
            behind = [pod for _, labels, pod in labelled if wanted.items() <= labels.items()]
            if not behind:
                yield f"{name}: its selector matches no pod"
            for port in spec["ports"]:
                target = port.get("targetPort", port["port"])
                if behind and not any(_has_port(pod, target) for pod in behind):
                    yield f"{name}: no pod behind it has the port {target}"


def _has_port(pod: Object, target: str | int) -> bool:
    return any(
        target in (port.get("name"), port["containerPort"]) for entry in pod["containers"] for port in entry.get("ports", ())
    )


def accounts(objects: list[Object]) -> Iterator[str]:
    """Accounts and roles that are named and do not exist."""
    there = {(made["kind"], made["metadata"].get("name")) for made in objects}
    for owner, pod in pods(objects):
        if "serviceAccountName" in pod["spec"] and ("ServiceAccount", pod["spec"]["serviceAccountName"]) not in there:
            yield f"{owner}: no ServiceAccount {pod['spec']['serviceAccountName']}"
    for made in objects:
        if made["kind"] == "RoleBinding":
            for named in (made["roleRef"], *made["subjects"]):
                if (named["kind"], named["name"]) not in there:
                    yield f"RoleBinding/{made['metadata']['name']}: no {named['kind']} {named['name']}"


def addresses(objects: list[Object]) -> Iterator[str]:
    """Hosts and ports, anywhere in a text, that are no service of ours."""
    there = {
        (made["metadata"]["name"], str(port["port"]))
        for made in objects
        if made["kind"] == "Service"
        for port in made["spec"]["ports"]
    }
    for made in objects:
        for text in _texts(made):
            for host, port in ADDRESS.findall(text):
                if (host, port) not in there:
                    yield f"{made['kind']}/{made['metadata'].get('name')}: no service {host}:{port}"


def literals(objects: list[Object]) -> Iterator[str]:
    """Secrets as texts: a Secret among the manifests, or a value beside a name that is one."""
    for made in objects:
        if made["kind"] == "Secret":
            yield f"Secret/{made['metadata']['name']}: is among the manifests"
        if made["kind"] == "ConfigMap":
            yield from (f"ConfigMap/{made['metadata']['name']}: holds {key}" for key in made["data"] if SENSITIVE.search(key))
    for owner, pod in pods(objects):
        for entry in pod["spec"]["containers"]:
            yield from (
                f"{owner}: {variable['name']} is a literal"
                for variable in entry.get("env", ())
                if SENSITIVE.search(variable["name"]) and "value" in variable
            )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
