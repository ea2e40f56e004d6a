"""SQNR per convolution: equal to an independent computation, and a planted fault is what it finds."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from pipeline.deploy.quantization import calibrate, plan, read_ranges
from pipeline.deploy.selection import choose
from pipeline.deploy.sensitivity import NOISELESS, Bench, decibels
from tests.deploy.graphs import FULL, config, conv, graph_of, noise, save

FEEDS = [{"pixels": noise((1, 3, 8, 8), seed)} for seed in range(3)]


def bench_of(model: onnx.ModelProto, folder: Path) -> Bench:
    path = save(model, folder)
    calibrate(path, lambda: FEEDS, "minmax", folder / "ranges.json")
    return Bench.of(onnx.load(path), FEEDS, read_ranges(folder / "ranges.json"), threads=1)


# -- the same in plain numpy, by the definitions of ONNX's QuantizeLinear --


def convolve(x_CHW: np.ndarray, w_OC33: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x_CHW, ((0, 0), (1, 1), (1, 1))), (3, 3), axis=(1, 2))
    return np.einsum("chwij,ocij->ohw", windows, w_OC33)


def rounded_activation(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """To 256 steps from min(low, 0) to max(high, 0), zero being one of them."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / 255)
    zero = np.round(-low / scale)
    return (np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale


def rounded_weight(w_OC33: np.ndarray) -> np.ndarray:
    """To -127..127 steps of each output channel's largest value."""
    scale_O = np.abs(w_OC33).reshape(len(w_OC33), -1).max(axis=1)[:, None, None, None] / 127
    return np.round(w_OC33 / scale_O) * scale_O


def test_equals_an_independent_computation(tmp_path: Path) -> None:
    first, second = noise((4, 3, 3, 3), 0), noise((2, 4, 3, 3), 1)
    nodes = [conv("pixels", "first", "a"), helper.make_node("Relu", ["a"], ["a0"], name="relu"), conv("a0", "second", "out")]
    bench = bench_of(graph_of(nodes, {"first": first, "second": second}), tmp_path)

    pictures = [feed["pixels"][0].astype(np.float64) for feed in FEEDS]
    middles = [np.maximum(convolve(x, first), 0) for x in pictures]
    wanted = [convolve(middle, second) for middle in middles]
    x_ends, m_ends, out_ends = ((np.min(values), np.max(values)) for values in (pictures, middles, wanted))
    only_first, only_second = [], []
    for x, middle in zip(pictures, middles, strict=True):
        low = np.maximum(convolve(rounded_activation(x, *x_ends), rounded_weight(first)), 0)
        only_first.append(convolve(rounded_activation(low, *m_ends), second))
        coarse = convolve(rounded_activation(middle, *m_ends), rounded_weight(second))
        only_second.append(rounded_activation(coarse, *out_ends))

    def by_hand(found: list[np.ndarray]) -> float:
        noise_power = sum(((f - w) ** 2).sum() for f, w in zip(found, wanted, strict=True))
        return float(10 * np.log10(sum((w**2).sum() for w in wanted) / noise_power))

    done: list[int] = []
    found = bench.layers(plan(onnx.load(tmp_path / "graph.onnx"), config(), FULL), done.append)
    assert found.layers["first"] == pytest.approx(by_hand(only_first), abs=0.05)
    assert found.layers["second"] == pytest.approx(by_hand(only_second), abs=0.05)
    assert found.ends == ("second",) and done == [1, 2]


@pytest.mark.parametrize("blown_up", [1.0, 300.0])
def test_a_blown_up_channel_is_found_and_its_convolutions_return_to_float(tmp_path: Path, blown_up: float) -> None:
    """`b` multiplies a channel that `c` divides again: the same function, but one range for all channels no longer serves."""
    weights = {name: noise((6, 3 if name == "a" else 6, 3, 3), seed, 0.2) for seed, name in enumerate("abcd")}
    weights["b"][2] *= blown_up
    weights["c"][:, 2] /= blown_up
    places = ["pixels", "x", "y", "z", "out"]
    nodes = [conv(places[at], name, places[at + 1]) for at, name in enumerate("abcd")]
    bench = bench_of(graph_of(nodes, weights), tmp_path)
    model = onnx.load(tmp_path / "graph.onnx")
    sensitivities = bench.layers(plan(model, config(), FULL), lambda _: None)

    def losses(kept: tuple[str, ...]) -> dict[str, float]:
        return {name: 10 ** (-sqnr / 10) for name, sqnr in bench.whole(plan(model, config(), FULL, kept)).items()}

    choice = choose(sensitivities.worst_first(), 3, 0.01, losses)  # a noise of a tenth of the signal
    assert choice.best is not None
    if blown_up == 1:
        assert choice.best.kept_float == ()
    else:
        assert set(sensitivities.worst_first()[:2]) == {"b", "c"} == set(choice.best.kept_float)


def test_each_end_counts_the_same_and_silence_is_left_out() -> None:
    assert decibels(np.array([100.0, 1.0]), np.array([1.0, 0.01])) == pytest.approx(20)
    assert decibels(np.array([100.0, 0.0]), np.array([1.0, 5.0])) == pytest.approx(20)
    assert decibels(np.array([1.0]), np.array([0.0])) == NOISELESS == decibels(np.array([0.0]), np.array([0.0]))
