"""`python -m pipeline predict`: run the exported detector on pictures, without torch."""

import argparse
import itertools
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline.errors import ConfigError, DataError, UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.predict.preprocess import Pixels
    from pipeline.predict.session import Detector, Found


def run(arguments: list[str]) -> None:
    """Predict on each picture named in `arguments`; see --help. UserError at the end when a picture could not be read."""
    options = _options(arguments)
    from pipeline.predict.preprocess import read_image
    from pipeline.predict.session import Detector, Found

    detector = Detector.open(options.model, "int8" if options.int8 else "onnx")
    if any(name.startswith("dense") for name in detector.backend.outputs):
        print("predict: boxes alone; the file's dense poses are drawn by evaluate's report, not by this command", file=sys.stderr)
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
        summary = _summary(found.classes, found.scores_D.tolist())
        print(f"{path}: {summary if found.semantic_HW is None else _grounds(found, detector)}", flush=True)
        results.append(_record(path, image.shape[:2], found))
        if options.out is not None:
            _write(options.out / names[path], _png(_drawn(image, found, detector)))
            results[-1] |= _write_maps(options.out, names[path], found, detector)
    if options.out is not None:
        _write(options.out / "predictions.json", _json(results))
        print(f"{len(results)} drawn pictures and predictions.json in {options.out}")
    if failed:
        raise UserError(f"predict: {len(failed)} of {len(options.pictures)} pictures could not be read")


def _drawn(image: "Pixels", found: "Found", detector: "Detector") -> "Pixels":
    """The picture with what was found: the map where there is one, else masks and boxes."""
    from pipeline.predict.draw import class_colour, draw_boxes, draw_regions, draw_rotated, tint_masks
    from pipeline.predict.skeletons import draw_skeletons

    if found.semantic_HW is not None:
        ids_HW, captions, labels = _regions(found, detector)
        return draw_regions(image, ids_HW, captions, [class_colour(label) for label in labels])
    captions = [f"{name} {score:.2f}" for name, score in zip(found.classes, found.scores_D, strict=True)]
    colours = [class_colour(label) for label in found.labels_D.tolist()]
    if found.rotated_D5 is not None:
        return draw_rotated(image, found.rotated_D5, captions, colours)
    drawn = draw_boxes(tint_masks(image, found.masks(), colours), found.boxes_D4, captions, colours)
    if found.keypoints_D is None:
        return drawn
    skeletons = [detector.skeletons[label] for label in found.labels_D.tolist()]
    return draw_skeletons(drawn, drawn.shape[0] / image.shape[0], found.keypoints_D, skeletons, colours)


def _regions(found: "Found", detector: "Detector") -> tuple["NDArray[Any]", list[str], list[int]]:
    """Number of each pixel's region, and of region 1, 2, ... a caption and a colour's number: segments, else classes."""
    assert found.semantic_HW is not None
    if found.segments is None:
        names = list(detector.semantic)
        return found.semantic_HW.astype("int32") + 1, names, list(range(len(names)))
    listed, things = found.segments.listed, len(detector.classes)
    captions = [f"{detector.classes[one.label]} {one.score:.2f}" if one.thing else detector.semantic[one.label] for one in listed]
    return found.segments.ids_HW, captions, [one.label if one.thing else things + one.label - 1 for one in listed]


def _grounds(found: "Found", detector: "Detector") -> str:
    """`62 % striped ground, 38 % things` by share of the pixels; of panoptic maps also how many of each thing."""
    import numpy as np

    assert found.semantic_HW is not None
    shares = np.bincount(found.semantic_HW.ravel(), minlength=len(detector.semantic)) / found.semantic_HW.size
    order = np.argsort(-shares, kind="stable").tolist()
    ground = ", ".join(f"{shares[number]:.0%} {detector.semantic[number]}" for number in order if shares[number] > 0)
    if found.segments is None:
        return ground
    things = Counter(detector.classes[one.label] for one in found.segments.listed if one.thing).most_common()
    return "; ".join([", ".join(f"{count} {name}" for name, count in things) or "no thing", ground])


def _write_maps(out: Path, name: str, found: "Found", detector: "Detector") -> dict[str, Any]:
    """Write the picture's maps below `out`, and what predictions.json says of them."""
    from pipeline.predict.map_files import encode_classes, encode_segments

    said: dict[str, Any] = {}
    if found.semantic_HW is not None:
        _write(out / "semantic" / name, encode_classes(found.semantic_HW))
        said["semantic"] = {"file": f"semantic/{name}", "classes": list(detector.semantic)}
    if found.segments is not None and detector.merging is not None:
        _write(out / "panoptic" / name, encode_segments(found.segments.ids_HW))
        ids, stuff = detector.category_ids, detector.merging.stuff_ids
        infos = [
            {
                "id": number,
                "category_id": ids[one.label] if one.thing else stuff[one.label - 1],
                "class": detector.classes[one.label] if one.thing else detector.semantic[one.label],
                "isthing": int(one.thing),
                "score": round(one.score, 6),
            }
            for number, one in enumerate(found.segments.listed, 1)
        ]
        said["panoptic"] = {"file": f"panoptic/{name}", "segments_info": infos}
    return said


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
    for detection, points_K3 in zip(detections, found.keypoints_D or (), strict=False):
        detection["keypoints"] = [[round(float(value), 4) for value in point] for point in points_K3]
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
