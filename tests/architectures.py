"""The README's table of architectures, from the outcomes of a test run.

`pytest ... --outcomes docs/architectures.json` adds the outcomes of the tests that it ran to the file;
`python -m tests.architectures` writes the table between the README's markers. An outcome is never written by hand.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTCOMES, README = ROOT / "docs" / "architectures.json", ROOT / "README.md"
BEGIN, END = "<!-- architectures: written by python -m tests.architectures -->", "<!-- architectures: end -->"
RECORDED = ("tests/line/test_architectures.py", "tests/parity/", "tests/detector/")
"""Where tests lie whose outcomes are kept."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A row: its settings in conf/model, and what is proven against."""

    title: str
    full: str
    """conf/model/<full>.yaml: the reference's values."""
    tiny: str
    """conf/model/<tiny>.yaml: what runs through the line."""
    kit: str = ""
    """The kit's manifest; empty where the kit has none."""
    reference: str = ""
    """Tests against a plain reference, where the kit has no manifest."""
    onnx: str = ""
    """The tests of the exported file, by the beginning of their names, where the kit has no manifest."""


ARCHITECTURES = (
    Architecture("RPN", "rpn_r50_fpn", "rpn_tiny", kit="rpn_R50_FPN"),
    Architecture("Fast R-CNN, given proposals", "fast_rcnn_r50_fpn", "fast_rcnn_tiny", kit="fast_rcnn_R50_FPN"),
    Architecture("Faster R-CNN, FPN", "faster_rcnn_r50_fpn", "faster_rcnn_tiny", kit="faster_rcnn_R50_FPN"),
    Architecture("Mask R-CNN, FPN", "mask_rcnn_r50_fpn", "mask_rcnn_tiny", kit="mask_rcnn_R50_FPN"),
    Architecture(
        "Faster and Mask R-CNN, C4",
        "mask_rcnn_r50_c4",
        "mask_rcnn_c4_tiny",
        reference="tests/detector/test_c4.py",
        onnx="tests/detector/test_export.py::test_onnx_equals_torch[mask_rcnn_c4-",
    ),
    Architecture(
        "Mask R-CNN, deformable, GIoU", "mask_rcnn_r50_fpn_dconv", "mask_rcnn_dconv_tiny", kit="mask_rcnn_R50_FPN_dconv_giou"
    ),
    Architecture("Keypoint R-CNN", "keypoint_rcnn_r50_fpn", "keypoint_rcnn_tiny", kit="keypoint_rcnn_R50_FPN"),
    Architecture(
        "Cascade and Cascade Mask R-CNN", "cascade_mask_rcnn_r50_fpn", "cascade_mask_rcnn_tiny", kit="cascade_mask_rcnn_R50_FPN"
    ),
    Architecture("RetinaNet", "retinanet_r50_fpn", "retinanet_tiny", kit="retinanet_R50_FPN"),
    Architecture(
        "Rotated RPN",
        "rotated_rpn_r50_fpn",
        "rotated_rpn_tiny",
        reference="tests/detector/test_rotated.py",
        onnx="tests/detector/test_rotated.py::test_the_raw_heads_file_and_its_host_equal_torch",
    ),
    Architecture(
        "Rotated Faster R-CNN",
        "rotated_faster_rcnn_r50_fpn",
        "rotated_faster_rcnn_tiny",
        reference="tests/detector/test_rotated.py",
        onnx="tests/detector/test_rotated.py::test_the_raw_heads_file_and_its_host_equal_torch",
    ),
    Architecture("Semantic FPN", "semantic_fpn_r50", "semantic_fpn_tiny", kit="semantic_fpn_R50"),
    Architecture("Panoptic FPN", "panoptic_fpn_r50", "panoptic_fpn_tiny", kit="panoptic_fpn_R50"),
    Architecture("PointRend", "point_rend_r50_fpn", "point_rend_tiny", kit="pointrend_R50_FPN"),
    Architecture("DensePose R-CNN", "densepose_rcnn_r50_fpn", "densepose_rcnn_tiny", kit="densepose_R50_FPN"),
    Architecture(
        "TensorMask",
        "tensormask_r50_fpn",
        "tensormask_tiny",
        reference="tests/detector/test_tensormask.py",
        onnx="tests/detector/test_tensormask.py::test_onnx_equals_torch",
    ),
)
COLUMNS = ("architecture", "`model=`", "train", "evaluate", "parity", "quantize, export", "ONNX parity")


def table(outcomes: Mapping[str, str]) -> str:
    """The table as Markdown."""
    rows = [
        (
            one.title,
            f"`{one.full}`",
            line := verdict(outcomes, f"tests/line/test_architectures.py::test_the_line_runs[{one.tiny}]"),
            line,
            parity(outcomes, one),
            line,
            verdict(outcomes, f"tests/parity/test_exports.py::test_onnx_equals_torch[{one.kit}]")
            if one.kit
            else verdict(outcomes, one.onnx, whole=False),
        )
        for one in ARCHITECTURES
    ]
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def parity(outcomes: Mapping[str, str], one: Architecture) -> str:
    """The verdict on an architecture's parity, and against what."""
    if one.kit:
        found = [outcome for name, outcome in outcomes.items() if name.startswith("tests/parity/") and f"[{one.kit}" in name]
        found += [o for n, o in outcomes.items() if n.startswith("tests/parity/") and re.search(rf"\[\w+-{one.kit}\]", n)]
        return f"{_verdict(found)} kit `{one.kit}`"
    return f"{verdict(outcomes, one.reference, whole=False)} `{one.reference}`"


def verdict(outcomes: Mapping[str, str], name: str, whole: bool = True) -> str:
    """The verdict on the test `name`, or on all whose names begin so."""
    return _verdict([outcome for test, outcome in outcomes.items() if (test == name if whole else test.startswith(name))])


def _verdict(found: Sequence[str]) -> str:
    """yes when all that were not skipped passed."""
    ran = [outcome for outcome in found if outcome != "skipped"]
    return "not run" if not ran else "yes" if set(ran) == {"passed"} else "**no**"


def with_table(readme: str, outcomes: Mapping[str, str]) -> str:
    """The README with the table between its markers."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(outcomes)}\n{END}{after}"


def merged(known: Mapping[str, str], run: Mapping[str, str]) -> dict[str, str]:
    """Outcomes with those of a later run in their place, by name."""
    return dict(sorted({**known, **{name: outcome for name, outcome in run.items() if name.startswith(RECORDED)}}.items()))


def main() -> int:
    """Write the table into the README."""
    README.write_text(with_table(README.read_text(), json.loads(OUTCOMES.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
