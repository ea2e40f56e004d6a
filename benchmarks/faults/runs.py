"""Faults of run lengths, of crowds, of labels without a mask, and of panoptic maps."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from benchmarks.faults.boxes import plain
from benchmarks.faults.draft import Draft, Place, Record
from benchmarks.faults.masks import outlined, pixels
from benchmarks.faults.planter import planter
from pipeline.predict.map_files import decode_segments, encode_segments


def coded(mask_HW: NDArray[np.uint8], packed: bool) -> Record:
    """COCO's run lengths, as a text or as a list."""
    found = coco.encode(np.asfortranarray(mask_HW, np.uint8))
    if packed:
        return {"size": found["size"], "counts": found["counts"].decode()}
    flat = np.concatenate([[0], mask_HW.reshape(-1, order="F"), [2]])
    starts = np.flatnonzero(np.diff(flat))
    runs = np.diff(np.concatenate([[0], starts])).tolist()
    return {"size": found["size"], "counts": [int(run) for run in runs]}


@planter("mask-rle-sum", "coco", "run lengths cut short, a run changed, characters replaced; as a text and as a list")
def broken_runs(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        packed = bool(draft.rng.integers(2))
        runs = coded(pixels(label["segmentation"], image), packed)
        counts: Any = runs["counts"]
        kind = str(draft.rng.choice(["cut short", "changed"]))
        place = int(draft.rng.integers(1, len(counts)))
        if kind == "cut short":
            counts = counts[:place]
        elif packed:
            other = chr(48 + (ord(counts[place]) - 48 ^ int(draft.rng.integers(1, 64))))
            counts = counts[:place] + other + counts[place + 1 :]
        else:
            counts[place] += int(draft.rng.choice([-1, 1]) * draft.rng.integers(1, 200))
        label["segmentation"] = runs | {"counts": counts}
        return f"{'text' if packed else 'list'} {kind}"

    return draft.spoil_labels(spoil, outlined)


@planter("mask-rle-size", "coco", "run lengths of the turned picture, of one half as large, or of one cropped by 1 to 20 px")
def runs_of_other_size(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str | None:
        mask_HW = pixels(label["segmentation"], image)
        kind = str(draft.rng.choice(["turned", "half as large", "cropped"]))
        cut = int(draft.rng.integers(1, 21))
        if kind == "turned" and image["width"] == image["height"]:
            return None
        mask_HW = {"turned": mask_HW.T, "half as large": mask_HW[::2, ::2], "cropped": mask_HW[: -cut or None, cut:]}[kind]
        label["segmentation"] = coded(np.ascontiguousarray(mask_HW), bool(draft.rng.integers(2)))
        return kind

    return draft.spoil_labels(spoil, outlined)


@planter("mask-crowd-polygon", "coco", "iscrowd set on a label with polygons")
def crowd_polygon(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        label["iscrowd"] = 1
        return "iscrowd"

    return draft.spoil_labels(spoil, outlined)


@planter("mask-missing", "coco", "the segmentation null, an empty list, or not there")
def no_mask(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        kind = str(draft.rng.choice(["null", "empty list", "not there"]))
        label["segmentation"] = None if kind == "null" else []
        if kind == "not there":
            del label["segmentation"]
        return kind

    return draft.spoil_labels(spoil, outlined)


@planter("mask-overlap", "panoptic", "20 to 100 % of an object's pixels given to a larger one as well", 3)
def overlap(draft: Draft) -> list[Place]:
    places = []
    for split, image in draft.some_images(25):
        own = [label for label in draft.own(split, image) if plain(label) and label["area"] > 200]
        if len(own) < 2:
            continue
        small, large = sorted((own[place] for place in draft.rng.permutation(len(own))[:2]), key=lambda label: label["area"])
        small_HW, large_HW = (coco.decode(label["segmentation"]) for label in (small, large))
        share = float(draft.rng.uniform(0.2, 1))
        y_P, x_P = np.nonzero(small_HW)
        given = np.argsort(x_P, kind="stable")[: max(1, round(share * len(x_P)))]
        large_HW[y_P[given], x_P[given]] = 1
        large["segmentation"] = coded(large_HW, True)
        kind = "20 to 50 % of it" if share < 0.5 else "50 to 100 % of it"
        places.append(Place(kind, split, image["file_name"], large["id"], twins=(small["id"],)))
    return places


def drawn_segments(draft: Draft, split: str, image: Record) -> tuple[list[Record], NDArray[np.int32]]:
    """The listed segments and the map of a picture."""
    entry = next(one for one in draft.segments[split]["annotations"] if one["image_id"] == image["id"])
    return entry["segments_info"], decode_segments(draft.map_file(image)).copy()


@planter(
    "panoptic-segment-without-pixels",
    "panoptic",
    "a segment painted over by its neighbour or by nothing; a segment listed too many",
    3,
)
def segment_without_pixels(draft: Draft) -> list[Place]:
    places = []
    for split, image in draft.some_images(15):
        listed, ids_HW = drawn_segments(draft, split, image)
        if len(listed) < 2:
            continue
        kind = str(draft.rng.choice(["painted over", "not painted", "one listed too many"]))
        one, other = (listed[place] for place in draft.rng.permutation(len(listed))[:2])
        if kind == "one listed too many":
            unused = next(n for n in range(1, 10**6) if n not in {segment["id"] for segment in listed})
            listed.append({key: value for key, value in one.items() if key != "annotation_id"} | {"id": unused})
        else:
            ids_HW[ids_HW == one["id"]] = other["id"] if kind == "painted over" else 0
            draft.map_file(image).write_bytes(encode_segments(ids_HW))
        places.append(Place(kind, split, image["file_name"]))
    return places


@planter(
    "panoptic-pixels-without-segment",
    "panoptic",
    "a segment lost from the list; 1 pixel to a tenth of the map in a number of its own",
    3,
)
def pixels_without_segment(draft: Draft) -> list[Place]:
    places = []
    for split, image in draft.some_images(15):
        listed, ids_HW = drawn_segments(draft, split, image)
        kind = str(draft.rng.choice(["lost from the list", "painted patch", "painted pixel"]))
        if kind == "lost from the list":
            del listed[int(draft.rng.integers(len(listed)))]
        else:
            height, width = ids_HW.shape
            side = 1 if kind == "painted pixel" else int(draft.rng.integers(2, min(height, width) // 3))
            y, x = int(draft.rng.integers(height - side)), int(draft.rng.integers(width - side))
            ids_HW[y : y + side, x : x + side] = int(draft.rng.integers(1, 2**24))
            draft.map_file(image).write_bytes(encode_segments(ids_HW))
        places.append(Place(kind, split, image["file_name"]))
    return places


@planter(
    "panoptic-map-unreadable",
    "panoptic",
    "a map that is gone, cut short, text, a grey picture, a JPEG file, or 0.5 to 1.5 times as large",
    3,
)
def unreadable_map(draft: Draft) -> list[Place]:
    places = []
    for split, image in draft.some_images(15):
        path = draft.map_file(image)
        kind = str(draft.rng.choice(["gone", "cut short", "text", "grey", "JPEG", "other size"]))
        data = path.read_bytes()
        if kind == "gone":
            path.unlink()
        elif kind == "text":
            path.write_text("<html><body>404 Not Found</body></html>")
        elif kind == "cut short":
            path.write_bytes(data[: int(len(data) * draft.rng.uniform(0.02, 0.98))])
        else:
            with Image.open(path) as drawn:
                picture = drawn.convert("L" if kind == "grey" else "RGB")
            if kind == "other size":
                factor = float(draft.rng.choice([draft.rng.uniform(0.5, 0.98), draft.rng.uniform(1.02, 1.5)]))
                picture = picture.resize(
                    (round(picture.width * factor), round(picture.height * factor)), Image.Resampling.NEAREST
                )
            picture.save(path, "JPEG" if kind == "JPEG" else "PNG")
        places.append(Place(kind, split, image["file_name"]))
    return places


@planter("mask-pinholes", "coco", "a mask in run lengths with 15 to 120 holes of 1 to 3 px")
def pinholes(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str | None:
        import cv2

        mask_HW, wanted = pixels(label["segmentation"], image), int(draft.rng.integers(15, 121))
        room_HW = cv2.erode(np.pad(mask_HW, 1), np.ones((7, 7), np.uint8))[1:-1, 1:-1]
        y_P, x_P = np.nonzero(room_HW[::5, ::5])
        if len(y_P) < wanted:
            return None
        for place in draft.rng.choice(len(y_P), wanted, replace=False).tolist():
            side = int(draft.rng.integers(1, 4))
            mask_HW[5 * y_P[place] : 5 * y_P[place] + side, 5 * x_P[place] : 5 * x_P[place] + side] = 0
        label["segmentation"] = coded(mask_HW, bool(draft.rng.integers(2)))
        return "15 to 20 holes" if wanted <= 20 else "21 to 120 holes"

    return draft.spoil_labels(spoil, outlined)
