"""Training batches: what the network is shown is what was labelled, whatever the augmentation and the number of workers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import ops_cuda
from pipeline.data.annotations import PolygonPool
from pipeline.data.augment import Augmentation
from pipeline.data.loader import TrainingPictures, collate, pooled, training_batches
from pipeline.data.sampler import StepSampler
from pipeline.data.truths import Truths
from pipeline.errors import ConfigError

PLAIN = Augmentation(short_side=48, long_side=64, flip=0.0, scale=(1.0, 1.0), crop=0.0, crop_least=1.0)
WILD = Augmentation(short_side=48, long_side=96, flip=0.5, scale=(0.6, 1.6), crop=0.7, crop_least=0.5)


def painted(height: int, width: int, boxes: list[tuple[int, int, int, int]]) -> Image.Image:
    """A black picture with one saturated red rectangle per box: where the pixels are, the box must be."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        pixels[y1:y2, x1:x2, 0] = 255
    return Image.fromarray(pixels)


def labelled(boxes: Sequence[Sequence[float]], labels: Sequence[int]) -> Truths:
    """Truths of boxes alone."""
    return Truths(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64))


def bright(pixels_HW3: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.nonzero(pixels_HW3[..., 0] > 127)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("seed", range(40))
def test_boxes_follow_the_pixels_through_every_augmentation(seed: int) -> None:
    chance = np.random.default_rng(seed)
    height, width = chance.integers(40, 120, 2)
    x1, y1 = int(chance.integers(0, width - 20)), int(chance.integers(0, height - 20))
    box = (x1, y1, x1 + int(chance.integers(12, 20)), y1 + int(chance.integers(12, 20)))
    pixels_HW3, truths = WILD(painted(height, width, [box]), labelled([box], [3]), seed)
    boxes_G4, labels_G = truths.boxes_G4, truths.labels_G
    if len(labels_G) == 0:
        return
    np.testing.assert_allclose(boxes_G4[0], bright(pixels_HW3), atol=1.01)
    assert labels_G.tolist() == [3]


def test_augmentation_varies_and_a_seed_repeats_it() -> None:
    image, truths = painted(60, 80, [(10, 10, 30, 30)]), labelled([(10, 10, 30, 30)], [0])
    shapes = {WILD(image, truths, seed).pixels_HW3.shape for seed in range(20)}
    mirrored = {WILD(image, truths, seed).truths.boxes_G4[0, 0] > 24 for seed in range(20)}
    assert len(shapes) > 5 and len(mirrored) == 2
    first, again = WILD(image, truths, 5), WILD(image, truths, 5)
    assert first.pixels_HW3.tobytes() == again.pixels_HW3.tobytes()
    assert (first.truths.boxes_G4 == again.truths.boxes_G4).all()


def test_augmentation_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    WILD(painted(60, 80, []), labelled([], []), 5)
    assert torch.equal(before, torch.get_rng_state())


def test_a_box_cut_away_by_the_crop_goes_with_its_label() -> None:
    image, truths = painted(100, 100, [(0, 0, 8, 8)]), labelled([(0, 0, 8, 8)], [1])
    cropping = Augmentation(short_side=50, long_side=50, flip=0.0, scale=(1.0, 1.0), crop=1.0, crop_least=0.5)
    kept = [len(cropping(image, truths, seed).truths) for seed in range(40)]
    assert 0 in kept and 1 in kept


def test_padding_is_right_and_bottom_with_truths_marked() -> None:
    images = [painted(30, 50, [(2, 2, 10, 10), (20, 20, 30, 30)]), painted(50, 30, [])]
    truths = [labelled([(2, 2, 10, 10), (20, 20, 30, 30)], [0, 1]), labelled([], [])]
    from pipeline.data.loader import Sample

    samples = []
    for name, image, own in zip("ab", images, truths, strict=True):
        pixels, scaled = PLAIN(image, own, 0)
        samples.append(Sample(pixels.transpose(2, 0, 1), scaled, name))
    batch = collate(samples, divisor=32)
    assert batch.images.pixels_N3HW.shape == (2, 3, 64, 64) and batch.images.pixels_N3HW.dtype == torch.uint8
    assert batch.images.sizes_N2.tolist() == [[38, 64], [64, 38]]
    assert batch.targets.labels_NG.tolist() == [[0, 1], [-1, -1]]
    assert int(batch.images.pixels_N3HW[0, :, 38:].max()) == 0


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory):
    """Seven pictures, each painted in its own grey, one with a crowd."""
    from tests.data.simple import simple_dataset

    return simple_dataset(tmp_path_factory.mktemp("loader"), pictures=7).split("train")


def test_the_stream_is_the_same_for_any_number_of_workers(split, tmp_path: Path) -> None:
    streams = []
    for workers in (0, 2):
        pictures = TrainingPictures(split, WILD, "rgb", seed=3)
        streams.append(list(training_batches(pictures, StepSampler(batch=3, last=5), 32, workers)))
    for one, two in zip(*streams, strict=True):
        assert one.names == two.names
        assert torch.equal(one.images.pixels_N3HW, two.images.pixels_N3HW)
        assert torch.equal(one.targets.boxes_NG4, two.targets.boxes_NG4)


def test_a_stream_entered_later_goes_on_where_it_would_have_been(split) -> None:
    pictures = TrainingPictures(split, WILD, "rgb", seed=3)
    whole = [batch.names for batch in training_batches(pictures, StepSampler(batch=3, last=6), 32, 0)]
    assert [batch.names for batch in training_batches(pictures, StepSampler(batch=3, last=6).starting(4), 32, 0)] == whole[4:]


@pytest.mark.parametrize(("ranks", "passes"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_a_step_holds_the_same_pictures_however_they_are_dealt_out(ranks: int, passes: int) -> None:
    shards = [list(StepSampler(batch=12, last=5, rank=rank, ranks=ranks, passes=passes, step=2)) for rank in range(ranks)]
    for step in range(2, 5):
        mine = [shard[(step - 2) * passes : (step - 1) * passes] for shard in shards]
        assert [position for parts in mine for part in parts for position in part] == list(range(step * 12, (step + 1) * 12))
        places = [
            StepSampler(batch=12, last=5, rank=r, ranks=ranks, passes=passes).first(n)
            for r in range(ranks)
            for n in range(passes)
        ]
        assert [part.start - step * 12 for parts in mine for part in parts] == places


def test_a_batch_that_cannot_be_dealt_out_evenly_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match=r"train\.batch=8 must be a multiple of 3 processes x train\.accumulate=2"):
        StepSampler(batch=8, last=5, ranks=3, passes=2)


def test_reading_takes_nothing_from_the_global_generator(split) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for workers in (0, 1):
        next(iter(training_batches(TrainingPictures(split, WILD, "rgb", seed=3), StepSampler(batch=3, last=2), 32, workers)))
    assert torch.equal(before, torch.get_rng_state())


def test_each_lap_shows_every_picture_once_in_a_new_order(split) -> None:
    pictures = TrainingPictures(split, PLAIN, "rgb", seed=3)
    laps = [[pictures[lap * 7 + place].name for place in range(7)] for lap in range(3)]
    assert all(sorted(lap) == sorted(split.images.file_names) for lap in laps)
    assert len({tuple(lap) for lap in laps}) == 3


def test_channels_are_ordered_as_the_model_wants(split) -> None:
    rgb, bgr = (TrainingPictures(split, PLAIN, channels, seed=3)[0].pixels_3HW for channels in ("rgb", "bgr"))
    assert not np.array_equal(rgb, bgr)
    np.testing.assert_array_equal(rgb, bgr[::-1])


def test_crowds_and_unknown_classes_are_not_taught(split) -> None:
    taught = sum(len(TrainingPictures(split, PLAIN, "rgb", seed=3)[place].truths) for place in range(7))
    annotations = split.annotations
    assert taught == int((~annotations.crowd_A & (annotations.label_A >= 0)).sum()) < len(annotations.label_A)


@pytest.mark.parametrize("seed", range(25))
def test_outlines_follow_the_pixels_through_every_augmentation(seed: int) -> None:
    """Triangles painted by Pillow: where the pixels are, the outline must be, rasterised in the box it ended up with."""
    chance = np.random.default_rng(seed)
    image, polygons, boxes = Image.new("RGB", (180, 140)), [], []
    for corner in chance.permutation([(4, 4), (100, 10), (20, 80), (100, 80)])[:3]:
        width, height, lean = chance.uniform(30, 55, 3)
        triangle = corner + np.array([(0.0, 0), (width, 0), (lean, height)])
        ImageDraw.Draw(image).polygon([tuple(point) for point in triangle.tolist()], fill=(255, 0, 0))
        polygons.append([triangle])
        boxes.append([*triangle.min(axis=0), *triangle.max(axis=0)])
    found = replace(WILD, short_side=96, long_side=192)(
        image, replace(labelled(boxes, [0, 1, 2]), polygons=PolygonPool.of(polygons)), seed
    )
    polygons = found.truths.polygons
    assert polygons is not None and len(polygons.annotation_starts) == len(found.truths) + 1
    batch = pooled([polygons], most=5)
    assert batch is not None and batch.truth_starts.shape == (6,)
    height, width = found.pixels_HW3.shape[:2]
    whole = torch.tensor([[0.0, 0, max(height, width), max(height, width)]]).expand(len(found.truths), 4)
    pools = batch.points_P2, batch.polygon_starts, batch.truth_starts
    masks = ops_cuda.rasterise_polygons(*pools, whole, torch.arange(len(whole)), max(height, width)).any(dim=0)
    painted_HW = found.pixels_HW3[..., 0] > 127
    if len(whole) == 3:  # no triangle was cut away: every red pixel is in an outline
        union = masks[:height, :width].numpy() | painted_HW
        assert (masks[:height, :width].numpy() & painted_HW).sum() > 0.9 * union.sum()


def test_a_batch_pools_the_outlines_of_its_pictures(split) -> None:
    """Truth g of picture n finds its own polygons, padded truths and pictures without truths none."""
    squares = [[np.full((4, 2), 10.0 * n + g) for _ in range(g + 1)] for n in range(2) for g in range(2)]
    pools = [PolygonPool.of(squares[:2]), PolygonPool.of([]), PolygonPool.of(squares[2:3])]
    batch = pooled(pools, most=3)
    assert batch is not None
    assert np.diff(batch.truth_starts).tolist() == [1, 2, 0, 0, 0, 0, 1, 0, 0]
    assert batch.points_P2[batch.polygon_starts[batch.truth_starts[1]], 0] == 1
    assert batch.points_P2[batch.polygon_starts[batch.truth_starts[6]], 0] == 10
    assert pooled([], most=3) is None
