"""What `kustomize build` makes of infra/kubernetes, as far as the files there use it: no kustomize is needed to check them.

A test holds it equal to the real one where that is installed. Anything that it does not know is an error, never left out.
"""

import copy
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
KNOWN = {
    "apiVersion", "kind", "namespace", "labels", "resources", "configMapGenerator", "generatorOptions", "images", "patches",
}  # fmt: skip


def build(folder: Path) -> list[Object]:
    """Every object of the kustomization in `folder`."""
    plan = read(folder)
    objects = [made for name in plan.get("resources", ()) for made in resource(folder / name)]
    for entry in plan.get("configMapGenerator", ()):
        generate(entry, folder, objects)
    for patch in plan.get("patches", ()):
        apply(patch, folder, objects)
    for image in plan.get("images", ()):
        for container in containers(objects):
            if container["image"].split(":")[0] == image["name"]:
                container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
    for made in objects:
        adorn(made, plan)
    return objects


def read(folder: Path) -> Object:
    """The kustomization.yaml of a folder."""
    plan: Object = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert plan.keys() <= KNOWN, plan.keys() - KNOWN
    return plan


def files(folder: Path) -> list[Path]:
    """Every file that the kustomization in `folder` names, those of the folders that it builds on included, and itself."""
    plan = read(folder)
    named = [folder / "kustomization.yaml"]
    for name in plan.get("resources", ()):
        place = (folder / name).resolve()
        named += files(place) if place.is_dir() else [place]
    named += [folder / name for entry in plan.get("configMapGenerator", ()) for name in entry.get("files", ())]
    return named + [folder / patch["path"] for patch in plan.get("patches", ())]


def resource(path: Path) -> list[Object]:
    """The objects of a file, or of a kustomization's folder."""
    return build(path) if path.is_dir() else [made for made in yaml.safe_load_all(path.read_text()) if made]


def generate(entry: Object, folder: Path, objects: list[Object]) -> None:
    """A ConfigMap of files and literals; with `behavior: merge` into the one that is there."""
    data = {Path(name).name: (folder / name).read_text() for name in entry.get("files", ())}
    data |= dict(literal.split("=", 1) for literal in entry.get("literals", ()))
    if entry.get("behavior") == "merge":
        find(objects, "ConfigMap", entry["name"])["data"] |= data
    else:
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": entry["name"]}, "data": data})


def apply(patch: Object, folder: Path, objects: list[Object]) -> None:
    """A strategic merge into the object of the same kind and name, or JSON operations on all of a kind."""
    content = yaml.safe_load((folder / patch["path"]).read_text())
    if isinstance(content, dict):
        merge(find(objects, content["kind"], content["metadata"]["name"]), content)
        return
    for made in objects:
        if made["kind"] == patch["target"]["kind"]:
            for operation in content:
                replace(made, operation)


def replace(made: Any, operation: Object) -> None:
    """One JSON patch operation, of the only kind used here."""
    assert operation["op"] == "replace"
    *path, last = (int(word) if word.isdigit() else word for word in operation["path"].strip("/").split("/"))
    for word in path:
        made = made[word]
    made[last]  # must be there
    made[last] = copy.deepcopy(operation["value"])


def merge(into: Object, patch: Object) -> None:
    """Lists of named objects are merged by name, other lists replaced."""
    for key, value in patch.items():
        there = into.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            merge(there, value)
        elif isinstance(there, list) and value and isinstance(value[0], dict) and "name" in value[0]:
            for part in value:
                merge(next(entry for entry in there if entry["name"] == part["name"]), part)
        else:
            into[key] = value


def adorn(made: Object, plan: Object) -> None:
    """Namespace and labels."""
    metadata = made["metadata"]
    if made["kind"] != "Namespace" and "namespace" in plan:
        metadata["namespace"] = plan["namespace"]
        for subject in made.get("subjects", ()):
            subject["namespace"] = plan["namespace"]
    for entry in plan.get("labels", ()):
        metadata["labels"] = metadata.get("labels", {}) | entry["pairs"]
        if entry.get("includeTemplates") and "template" in made.get("spec", {}):
            template = made["spec"]["template"]["metadata"]
            template["labels"] = template.get("labels", {}) | entry["pairs"]
            for claim in made["spec"].get("volumeClaimTemplates", ()):
                claim["metadata"]["labels"] = claim["metadata"].get("labels", {}) | entry["pairs"]


def find(objects: list[Object], kind: str, name: str) -> Object:
    """The object of this kind and name; AssertionError without it."""
    found = [made for made in objects if (made["kind"], made["metadata"].get("name")) == (kind, name)]
    assert len(found) == 1, f"{kind}/{name}: {len(found)} of them"
    return found[0]


def pods(objects: list[Object]) -> list[tuple[str, Object]]:
    """The pod templates of all objects, each with the kind and name of its owner."""
    return [
        (f"{made['kind']}/{made['metadata'].get('name') or made['metadata'].get('generateName')}", made["spec"]["template"])
        for made in objects
        if "template" in made.get("spec", {})
    ]


def containers(objects: list[Object]) -> list[Object]:
    """All containers of all pods."""
    return [entry for _, pod in pods(objects) for entry in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])]
