"""The order of training pictures, and how often rare classes come back, against the formula of Gupta et al. 2019."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from pipeline.data.sampler import PictureOrder, pictures_per_class, repeat_factors


def labels(pictures: list[list[int]], crowds: tuple[int, ...] = ()) -> Any:
    """A table of labels: the classes of each picture; labels numbered in `crowds` are crowds."""
    image = [row for row, classes in enumerate(pictures) for _ in classes]
    label = [k for classes in pictures for k in classes]
    crowd = np.isin(np.arange(len(label)), crowds)
    return SimpleNamespace(image_A=np.array(image, np.int32), label_A=np.array(label), crowd_A=crowd)


def test_repeat_factors_are_the_papers() -> None:
    pictures = [[0, 0, 1], [0], [0, 2], [], [0, -1], [0], [0], [0]]
    frequency = {k: sum(k in classes for classes in pictures) / len(pictures) for k in (0, 1, 2)}
    threshold = 0.5
    expected = [max([1.0, *(math.sqrt(threshold / frequency[k]) for k in classes if k >= 0)]) for classes in pictures]
    np.testing.assert_allclose(repeat_factors(labels(pictures), 8, threshold), expected)
    assert expected[0] == 2.0
    assert pictures_per_class(labels(pictures), 4).tolist() == [7, 1, 1, 0]


def test_crowds_teach_nothing_and_repeat_nothing() -> None:
    table = labels([[0], [1], [0]], crowds=(1,))
    assert repeat_factors(table, 3, 0.9).tolist() == [math.sqrt(0.9 / (2 / 3)), 1.0, math.sqrt(0.9 / (2 / 3))]


def test_every_lap_shows_each_picture_once_without_repeats() -> None:
    order = PictureOrder(7, seed=3)
    rows = [order.row(position) for position in range(21)]
    assert all(sorted(rows[lap * 7 : lap * 7 + 7]) == list(range(7)) for lap in range(3)) and rows[:7] != rows[7:14]


def test_pictures_come_as_often_as_their_factors_say() -> None:
    factors = np.array([1.0, 2.0, 1.5, 3.25])
    order, laps = PictureOrder(4, 0, factors), 800
    count = np.zeros(4)
    while len(order._starts) <= laps:
        order.row(order._starts[-1])
    for position in range(order._starts[laps]):
        count[order.row(position)] += 1
    np.testing.assert_allclose(count / laps, factors, atol=0.06)
    lap = np.bincount([order.row(position) for position in range(order._starts[5], order._starts[6])], minlength=4)
    assert (lap >= np.floor(factors)).all() and (lap <= np.ceil(factors)).all()


def test_a_position_has_one_picture_whoever_asks_and_whenever() -> None:
    """A resumed run, and a worker that reads every other position, see what the first run saw."""
    factors = np.linspace(1, 3, 11)
    straight = PictureOrder(11, 5, factors)
    rows = [straight.row(position) for position in range(200)]
    resumed = PictureOrder(11, 5, factors)
    assert [resumed.row(position) for position in reversed(range(200))] == rows[::-1]
