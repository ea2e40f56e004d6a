"""A public Detectron2 YAML config as options: `_BASE_` files under it, and the reference's values for what it leaves out.

Nothing in such a file is executed. Tuples stand in them as text ("(640, 672)"), read as literals. The zoo's RetinaNet files hold
one expression to be evaluated; its value is known here by its text, and no other expression is read.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.detector.config import ModelConfig
from pipeline.detector.pretrained.detectron2.translate import translate
from pipeline.errors import DataError

BASE = "_BASE_"
DEEPEST = 10
DEFAULTS = Path(__file__).with_name("defaults.yaml")
NOT_THE_MODEL = (
    "VERSION",
    "OUTPUT_DIR",
    "SEED",
    "CUDNN_BENCHMARK",
    "FLOAT32_PRECISION",
    "VIS_PERIOD",
    "GLOBAL",
    "DATASETS",
    "DATALOADER",
    "SOLVER",
    "TEST",
    "INPUT",
    "MODEL.WEIGHTS",
    "MODEL.DEVICE",
    "MODEL.LOAD_PROPOSALS",
)
"""Sections and options about data, schedule and machine: ours are `dataset`, `train` and `compute`."""
OF_THE_MODEL = (
    "TEST.DETECTIONS_PER_IMAGE",
    "INPUT.FORMAT",
    "INPUT.MASK_FORMAT",
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST",
)
EVAL = "tag:yaml.org,2002:python/object/apply:eval"
EXPRESSIONS = {
    "[[x,x*2**(1.0/3),x*2**(2.0/3)]forxin[32,64,128,256,512]]": [
        [size * 2 ** (third / 3) for third in range(3)] for size in (32, 64, 128, 256, 512)
    ],
}
"""The expressions of the zoo's own files, without blanks, and their values."""


def zoo_config(path: Path) -> ModelConfig:
    """Our settings of the model that the YAML file describes.

    DataError for a file that cannot be read, ConfigError naming an option or a value that is not understood.
    """
    return translate(zoo_options(path), _flat(_load(DEFAULTS)))


def zoo_options(path: Path) -> dict[str, Any]:
    """The options that the file and those under it set, as {"MODEL.MASK_ON": True, ...}, without what is not the model's."""
    options = _flat(_inherited(path, ()))
    return {name: value for name, value in options.items() if name in OF_THE_MODEL or not _beside_the_model(name)}


def _beside_the_model(name: str) -> bool:
    return any(name == section or name.startswith(f"{section}.") for section in NOT_THE_MODEL)


def _inherited(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above or len(above) == DEEPEST:
        raise DataError(path, f"{BASE} leads back to it, or through more than {DEEPEST} files")
    values = _load(path)
    base = values.pop(BASE, None)
    if base is None:
        return values
    if not isinstance(base, str) or "://" in base:
        raise DataError(path, f"{BASE}: {base!r} is not the path of a file", "bring that file along and name its path")
    return _merged(_inherited(path.parent / base, (*above, path.resolve())), values)


def _merged(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


class _Loader(yaml.SafeLoader):
    """Safe YAML, and the known expressions."""


def _expression(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    arguments = loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else []
    text = "".join(str(arguments[0]).split()) if len(arguments) == 1 else ""
    if text not in EXPRESSIONS:
        raise yaml.constructor.ConstructorError(None, None, "an expression that is not known is not evaluated", node.start_mark)
    return EXPRESSIONS[text]


_Loader.add_constructor(EVAL, _expression)


def _load(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError as error:
        raise DataError(path, "no such file", "zoo configs refer to others by _BASE_: keep their folders as they are") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise DataError(path, f"cannot be read as a config: {error}") from error
    if not isinstance(values, dict):
        raise DataError(path, "holds no options")
    return values


def _flat(values: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{at}.{key}" if at else str(key)
        flat |= _flat(value, name) if isinstance(value, dict) else {name: _literal(value)}
    return flat


def _literal(value: Any) -> Any:
    """A tuple or list that was written as text; anything else as it is."""
    if not isinstance(value, str) or not value.strip().startswith(("(", "[")):
        return value
    try:
        return _lists(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return value


def _lists(value: Any) -> Any:
    return [_lists(entry) for entry in value] if isinstance(value, tuple | list) else value
