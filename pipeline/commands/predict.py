"""`python -m pipeline predict`: run the exported detector on pictures, without torch."""

import argparse
import itertools
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from pipeline.errors import ConfigError, DataError, UserError


def run(arguments: list[str]) -> None:
    """Predict on each picture named in `arguments`; see --help. UserError at the end when a picture could not be read."""
    options = _options(arguments)
    from pipeline.predict.draw import class_colour, draw_boxes, draw_rotated, tint_masks
    from pipeline.predict.preprocess import read_image
    from pipeline.predict.session import Detector, Found

    detector = Detector.open(options.model, "int8" if options.int8 else "onnx")
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    names = _output_names(options.pictures)
    for path in options.pictures:
        try:
            image = read_image(path)
            found: Found = detector.predict(image, options.threshold)
        except DataError as error:
            failed.append(str(path))
            print(str(error).splitlines()[0], file=sys.stderr, flush=True)
            continue
        print(f"{path}: {_summary(found.classes, found.scores_D.tolist())}", flush=True)
        results.append(_record(path, image.shape[:2], found))
        if options.out is not None:
            captions = [f"{name} {score:.2f}" for name, score in zip(found.classes, found.scores_D, strict=True)]
            colours = [class_colour(label) for label in found.labels_D.tolist()]
            drawn = (
                draw_boxes(tint_masks(image, found.masks(), colours), found.boxes_D4, captions, colours)
                if found.rotated_D5 is None
                else draw_rotated(image, found.rotated_D5, captions, colours)
            )
            _write(options.out / names[path], _png(drawn))
    if options.out is not None:
        _write(options.out / "predictions.json", _json(results))
        print(f"{len(results)} drawn pictures and predictions.json in {options.out}")
    if failed:
        raise UserError(f"predict: {len(failed)} of {len(options.pictures)} pictures could not be read")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError("predict", None, f"{message}\n  {' '.join(self.format_usage().split())}")


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = _Parser("python -m pipeline predict", description="Run the exported ONNX detector on pictures.")
    parser.add_argument("pictures", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument(
        "--model", type=Path, default=Path("models/onnx"), help="folder with deploy.json and the ONNX files (%(default)s)"
    )
    parser.add_argument("--int8", action="store_true", help="run the INT8 file instead of the float one")
    parser.add_argument("--threshold", type=float, default=0.5, help="least score of a detection, 0 to 1 (%(default)s)")
    parser.add_argument(
        "--out", type=Path, help="folder for the drawn pictures and predictions.json; none are written without it"
    )
    options = parser.parse_args(arguments)
    if not 0 <= options.threshold <= 1:
        raise ConfigError("predict --threshold", options.threshold, "is a score: 0 to 1")
    return options


def _summary(classes: list[str], scores: list[float]) -> str:
    """`3 RBC, 1 WBC; best 0.97`."""
    if not classes:
        return "nothing found"
    counts = Counter(classes).most_common()
    return ", ".join(f"{count} {name}" for name, count in counts) + f"; best {max(scores):.2f}"


def _record(path: Path, size: tuple[int, ...], found: Any) -> dict[str, Any]:
    from pipeline.predict.postprocess import encode_mask

    detections: list[dict[str, Any]] = [
        {"class": name, "score": round(float(score), 6), "box": [round(float(side), 3) for side in box]}
        for name, score, box in zip(found.classes, found.scores_D, found.boxes_D4, strict=True)
    ]
    if found.rotated_D5 is not None:
        for detection, box in zip(detections, found.rotated_D5, strict=True):
            detection["rbox"] = [round(float(value), 3) for value in box]
    for detection, mask_HW in zip(detections, found.masks(), strict=False):  # none where the detector finds boxes alone
        rle = encode_mask(mask_HW)
        detection["mask"] = {"size": rle["size"], "counts": rle["counts"].decode()}
    return {"image": str(path), "height": size[0], "width": size[1], "detections": detections}


def _output_names(pictures: list[Path]) -> dict[Path, str]:
    """A file name for each drawn picture; equal names from different folders are numbered."""
    names: dict[Path, str] = {}
    for path in dict.fromkeys(pictures):
        numbered = (f"{path.stem}-{number}.png" for number in itertools.count(2))
        names[path] = next(name for name in itertools.chain([f"{path.stem}.png"], numbered) if name not in names.values())
    return names


def _png(image: Any) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _json(value: object) -> bytes:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _write(path: Path, data: bytes) -> None:
    from pipeline.files import write_atomically

    try:
        write_atomically(path, data)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {os.strerror(error.errno or 0)}") from error
