"""python benchmarks/readme_picture.py: docs/detections.jpg, what the exported INT8 file finds on some validation pictures."""

import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))  # run from a checkout, never installed

from pipeline.data.dataset import open_dataset
from pipeline.layout import Layout
from pipeline.predict.draw import class_colour, draw_boxes
from pipeline.predict.preprocess import read_image
from pipeline.predict.session import Detector

COLUMNS, ROWS, SIDE, GAP, SCORE = 4, 2, 320, 8, 0.6


def main(layout: Layout) -> None:
    """Draw the sheet for the line that ran in `layout`."""
    detector = Detector.open(layout.onnx, "int8")
    split = open_dataset(layout.validated).split("val")
    sheet = Image.new("RGB", (COLUMNS * (SIDE + GAP) - GAP, ROWS * (SIDE + GAP) - GAP), "white")
    for place in range(COLUMNS * ROWS):
        image = read_image(split.path(place))
        found = detector.predict(image, SCORE)
        captions = [f"{name} {score:.2f}" for name, score in zip(found.classes, found.scores_D.tolist(), strict=True)]
        drawn = draw_boxes(image, found.boxes_D4, captions, [class_colour(label) for label in found.labels_D.tolist()])
        corner = (place % COLUMNS * (SIDE + GAP), place // COLUMNS * (SIDE + GAP))
        sheet.paste(Image.fromarray(drawn).resize((SIDE, SIDE)), corner)
    sheet.save("docs/detections.jpg", quality=88)


if __name__ == "__main__":
    main(Layout())
