"""python -m pipeline zoo CONFIG.yaml [NAME]: a public Detectron2 config as conf/model/NAME.yaml, to be chosen by model=NAME."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline.errors import ConfigError

FOLDER = Path("conf/model")


def run(arguments: Sequence[str]) -> None:
    """Write the config file and print the two overrides. An existing file of that name is left alone: ConfigError."""
    if not 1 <= len(arguments) <= 2 or arguments[0].startswith("-"):
        raise ConfigError("zoo", None, "takes the path of a Detectron2 config, and a name if its own is not wanted")
    source = Path(arguments[0])
    name = arguments[1] if len(arguments) == 2 else re.sub(r"[^a-z0-9]+", "_", source.stem.lower()).strip("_")
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise ConfigError("zoo NAME", name, "must be of letters, digits and underscores: it becomes model=NAME")
    target = FOLDER / f"{name}.yaml"
    if target.exists():
        raise ConfigError("zoo NAME", name, f"is taken by {target}; give another name, or remove the file")
    from pipeline.detector.pretrained.detectron2.zoo import zoo_config

    target.write_bytes(written(asdict(zoo_config(source)), source.name))
    print(f"{target} holds the model of {source}")
    print(f"use it by: python -m pipeline config model={name} model.weights=FILE.pkl")


def written(values: dict[str, object], source: str) -> bytes:
    """The YAML file."""
    import json

    import yaml

    plain = json.loads(json.dumps(values))  # tuples as lists
    return f"# Translated from Detectron2's {source}.\n{yaml.safe_dump(plain, sort_keys=False, width=120)}".encode()
