"""Seconds per training step and per picture of every architecture, beside torchvision's model where it has one.

    python -m benchmarks.model                      # the row that the README quotes: Mask R-CNN R50-FPN, batch 2, 320 px
    python -m benchmarks.model --all                # every R50 file of conf/model/
    python -m benchmarks.model --profile            # where our step and our picture spend their time

Both models have the same weights, pictures and truths, hence the same proposals and the same number of regions (printed).
They take turns within one run, so that a busy machine slows both; medians and their ratio are printed, nothing else is a result.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
CLASSES, SEMANTIC, SIDE, TRUTHS = 80, 54, 320, 8


def main(arguments: list[str]) -> int:
    """Measure what the command line asks for; exit code."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.model", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=["mask_rcnn_r50_fpn"], help="files of conf/model/ (%(default)s)")
    parser.add_argument("--all", action="store_true", help="every R50 file of conf/model/")
    parser.add_argument("--side", type=int, default=SIDE, help="pixels a side of the pictures (%(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="pictures of a training step (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds after one that is not (%(default)s)")
    parser.add_argument("--only", choices=["train", "detect"], help="one of the two measurements")
    parser.add_argument("--profile", action="store_true", help="print torch.profiler's tables of ours instead of timing")
    options = parser.parse_args(arguments)
    names = sorted(path.stem for path in (ROOT / "conf/model").glob("*r50*.yaml")) if options.all else options.models
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {options.batch}, {options.side} px")
    for name in names:
        pair = make_pair(name, options.batch, options.side)
        if options.profile:
            profile(pair, options.only)
            continue
        for what in ("train", "detect") if options.only is None else (options.only,):
            print(row(pair, what, options.rounds), flush=True)
    return 0


@dataclass
class Pair:
    """Our detector and torchvision's of the same weights (None where it has none), with one batch for each."""

    name: str
    ours: Any
    peer: nn.Module | None
    images: Any
    targets: Any
    pictures: list[Tensor]
    truths: list[dict[str, Tensor]]


def make_pair(name: str, batch: int, side: int) -> Pair:
    """The detector of conf/model/<name>.yaml and its peer, with the peer's weights in both."""
    import pydantic

    from benchmarks.peers import make_peer
    from pipeline.detector.build import build_detector
    from pipeline.detector.config import ModelConfig
    from pipeline.detector.pretrained.torchvision import detector_from_torchvision
    from pipeline.detector.weights import load_weights

    values = yaml.safe_load((ROOT / f"conf/model/{name}.yaml").read_text())
    cfg: Any = pydantic.TypeAdapter(ModelConfig).validate_python(values)
    kind = peer_kind(cfg)
    classes = 1 if "proposals" in cfg.tasks else CLASSES
    torch.manual_seed(0)
    ours = build_detector(cfg, classes, SEMANTIC)
    peer = None
    if kind is not None:
        peer = make_peer(kind, classes, side, cfg.backbone.depth, **peer_options(cfg))
        own = ours.state_dict()
        sizes = len(cfg.anchors.sizes[0])
        state = detector_from_torchvision(peer.state_dict(), sizes, classes)
        if kind == "retinanet" and state["backbone.top_block.p6.weight"].shape != own["backbone.top_block.p6.weight"].shape:
            state["backbone.top_block.p6.weight"] = own["backbone.top_block.p6.weight"]  # from the backbone's last stage here
        load_weights(ours, state, name, may_miss=[n for n in own if n.endswith("num_batches_tracked")])
    images, targets, pictures, truths = make_batch(cfg, batch, side, classes, ours.divisor)
    return Pair(name, ours, peer, images, targets, pictures, truths)


def peer_kind(cfg: Any) -> str | None:
    """torchvision's architecture of the same kind: a ResNet with a pyramid and plain heads."""
    if cfg.backbone.kind != "resnet" or getattr(cfg, "fpn", None) is None:
        return None
    if cfg.kind == "retinanet":
        return "retinanet"
    if cfg.kind != "faster_rcnn" or cfg.roi.cascade or cfg.roi.densepose is not None or cfg.backbone.deform is not None:
        return None
    if cfg.roi.class_loss.kind != "softmax":
        return None
    if getattr(cfg.roi, "keypoint", None) is not None:
        return "keypoint_rcnn"
    return "faster_rcnn" if cfg.roi.mask is None else "mask_rcnn" if cfg.roi.mask.kind == "conv" else None


def peer_options(cfg: Any) -> dict[str, Any]:
    """torchvision's names for the settings that decide how much work there is."""
    mean, std = [[value / 255 for value in values] for values in (cfg.input.mean, cfg.input.std)]
    shared = {"image_mean": mean, "image_std": std}
    if cfg.kind == "retinanet":
        return shared | {"detections_per_img": cfg.select.limit, "topk_candidates": cfg.candidates}
    return shared | {
        "rpn_pre_nms_top_n_train": cfg.rpn.train.before_nms,
        "rpn_post_nms_top_n_train": cfg.rpn.train.after_nms,
        "rpn_pre_nms_top_n_test": cfg.rpn.test.before_nms,
        "rpn_post_nms_top_n_test": cfg.rpn.test.after_nms,
        "rpn_batch_size_per_image": cfg.rpn.sample.count,
        "box_batch_size_per_image": cfg.roi.sample.count,
        "box_detections_per_img": cfg.roi.select.limit,
    }


def make_batch(
    cfg: Any, batch: int, side: int, classes: int, divisor: int
) -> tuple[Any, Any, list[Tensor], list[dict[str, Tensor]]]:
    """Random pictures with rectangles as truths, in our form and in torchvision's."""
    from benchmarks.synthetic import synthetic_batch

    images, targets = synthetic_batch(cfg, classes, SEMANTIC, side, side, divisor, batch, TRUTHS)
    truths = []
    for n, (own_boxes, own_labels) in enumerate(zip(targets.boxes_NG4, targets.labels_NG, strict=True)):
        masks = torch.zeros(TRUTHS, side, side, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, own_boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        truth = {"boxes": own_boxes, "labels": own_labels + 1, "masks": masks}
        truths.append(truth if targets.keypoints_NGK3 is None else truth | {"keypoints": targets.keypoints_NGK3[n]})
    pictures = [picture[:, :side, :side].float() / 255 for picture in images.pixels_N3HW]
    return images, targets, pictures, truths


# -- measuring --


def work(pair: Pair, what: str) -> dict[str, tuple[Callable[[], object], nn.Module]]:
    """What to time, by side: a training step with its optimiser's, or the detections of one picture."""
    if what == "detect":
        from pipeline.structures import Images

        given = pair.images.proposals_NP4
        one = Images(pair.images.pixels_N3HW[:1], pair.images.sizes_N2[:1], None if given is None else given[:1])
        sides: dict[str, tuple[Callable[[], object], nn.Module]] = {
            "ours": (lambda: finish(pair.ours.detect(one), one), pair.ours.eval())
        }
        if pair.peer is not None:
            peer = pair.peer.eval()
            sides["torchvision"] = (lambda: peer(pair.pictures[:1]), peer)
        return {side: (torch.inference_mode()(call), model) for side, (call, model) in sides.items()}

    def step(model: nn.Module, losses: Callable[[], Tensor]) -> Callable[[], None]:
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.0, momentum=0.9)  # the whole work of a step; the weights stay equal

        def run() -> None:
            optimizer.zero_grad()
            losses().backward()
            optimizer.step()

        return run

    ours, peer = pair.ours.train(), pair.peer
    generator = torch.Generator().manual_seed(0)
    sides = {"ours": (step(ours, lambda: ours.losses(pair.images, pair.targets, generator).total()), ours)}
    if peer is not None:
        peer.train()

        def total() -> Tensor:
            return torch.stack(list(peer(pair.pictures, [dict(t) for t in pair.truths]).values())).sum()

        sides["torchvision"] = (step(peer, total), peer)
    return sides


def row(pair: Pair, what: str, rounds: int) -> str:
    """One line: regions, medians and ratio of `rounds` interleaved measurements."""
    sides = work(pair, what)
    regions = {side: count_regions(call, model) for side, (call, model) in sides.items()}  # also the round that warms up
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, (call, _) in sides.items():
            began = time.perf_counter()
            call()
            times[side].append(time.perf_counter() - began)
    median = {side: statistics.median(values) for side, values in times.items()}
    said = "  ".join(f"{side} {median[side]:.3f} s {regions[side]}" for side in sides)
    ratio = f"  ratio {median['torchvision'] / median['ours']:.2f}" if "torchvision" in sides else "  torchvision has none"
    return f"{pair.name:28} {what:6} {said}{ratio}"


def finish(found: Any, images: Any) -> None:
    """What torchvision's model does too: boxes, keypoints and masks at the picture's size. Nothing for what it has not."""
    from ops_cuda import paste_masks
    from pipeline.detector.postprocess import postprocess
    from pipeline.structures import Detections

    if not isinstance(found, Detections):
        return
    final = postprocess(found, images.sizes_N2, images.sizes_N2)
    if final.masks_NDMM is not None:
        count, (height, width) = int(final.count_N[0]), images.sizes_N2[0].tolist()
        paste_masks(final.masks_NDMM[0, :count], final.boxes_ND4[0, :count], height, width)


def count_regions(call: Callable[[], object], model: nn.Module) -> str:
    """How many rows the heads of the second stage really worked on, in one call."""
    rows: dict[str, int] = {}
    names = {"roi_heads.box_predictor": "boxes", "roi_heads.mask_head.deconv": "masks", "roi_heads.mask_predictor": "masks"}
    hooks = [
        module.register_forward_hook(lambda _m, inputs, _o, k=names[name]: rows.__setitem__(k, len(inputs[0])))
        for name, module in model.named_modules()
        if name in names
    ]
    call()
    for hook in hooks:
        hook.remove()
    return "(" + ", ".join(f"{count} {name}" for name, count in rows.items()) + ")" if rows else ""


def profile(pair: Pair, only: str | None) -> None:
    """torch.profiler's table of our side, by time of each operator itself."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    for what in ("train", "detect") if only is None else (only,):
        for side, (call, _) in work(pair, what).items():
            call()
            with profiler(activities=[ProfilerActivity.CPU], record_shapes=False) as recorded:
                call()
            print(f"\n{pair.name}: {what}: {side}")
            print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
