"""How much each convolution costs in INT8: the signal-to-noise ratio at the detector's logits and deltas, measured one by one.

SQNR = 10 log10(signal power / noise power), the float file's ends being the signal and the difference to them the noise. The
noise is taken relative to each end (a stage's logits, a stage's deltas) and then averaged over the ends, so that each counts the
same. 20 dB is a noise of a tenth of the signal. Source: Nagel et al., "A White Paper on Neural Network Quantization" (2021), 3.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto

from pipeline.deploy.quantization import Feed, Range, convolutions, quantized
from pipeline.deploy.recipe import Recipe
from pipeline.deploy.replay import Recorded, Replay, open_session, record, replayable

NOISELESS = 200.0
"""dB given where there is no noise at all, or less than float64 could add up."""


HOSTS = {"int8": True, "int8_exact": False}
"""Kinds of host: this one with all of ONNX Runtime's optimizations; every node computed as written, which stands for hosts whose
integer products are exact (VNNI, ARM, TensorRT)."""


@dataclass(frozen=True, slots=True)
class Sensitivities:
    """Decibels: the lower, the more the detector suffers."""

    layers: Mapping[str, float]
    """By weight, with that convolution alone in INT8, computed as the file is written (no optimization of the host's)."""
    ends: tuple[str, ...]
    """Weights behind the outputs at which it was measured."""

    def worst_first(self) -> list[str]:
        """Weights by rising SQNR; equal ones in the alphabet's order."""
        return sorted(self.layers, key=lambda name: (self.layers[name], name))


@dataclass(frozen=True, slots=True)
class Bench:
    """A few pictures recorded from the float file, and all that is needed to run INT8 variants of it against them."""

    replay: Replay
    recorded: Sequence[Recorded]
    ranges: Mapping[str, Range]
    threads: int

    @classmethod
    def of(cls, model: ModelProto, feeds: Iterable[Feed], ranges: Mapping[str, Range], threads: int) -> "Bench":
        """Run the float `model` on `feeds`, one picture each."""
        replay = replayable(model)
        return cls(replay, record(model, replay, feeds, threads), ranges, threads)

    def layers(self, recipe: Recipe, show: Callable[[int], None]) -> Sensitivities:
        """SQNR of each of the recipe's convolutions alone in INT8; `show(done)` is told after each."""
        found: dict[str, float] = {}
        for name in recipe.quantized:
            found[name] = self.measure(replace(recipe, quantized=(name,)), optimize=False)
            show(len(found))
        return Sensitivities(found, tuple(self.replay.ends))

    def whole(self, recipe: Recipe) -> dict[str, float]:
        """SQNR of the whole recipe on each kind of host."""
        return {name: self.measure(recipe, optimize) for name, optimize in HOSTS.items()}

    def measure(self, recipe: Recipe, optimize: bool) -> float:
        """SQNR in dB with the recipe's convolutions in INT8; of no use to what is measured, they cost nothing."""
        there = convolutions(self.replay.model)
        kept = tuple(name for name in recipe.quantized if name in there)
        session = open_session(quantized(self.replay.model, self.ranges, replace(recipe, quantized=kept)), self.threads, optimize)
        signal_E, noise_E = np.zeros(len(self.replay.ends)), np.zeros(len(self.replay.ends))
        for picture in self.recorded:
            found = dict(zip(self.replay.outputs, session.run(self.replay.outputs, picture.feed), strict=True))
            for place, names in enumerate(self.replay.ends.values()):
                for name in names:
                    wanted = picture.ends[name].astype(np.float64)
                    signal_E[place] += np.square(wanted).sum()
                    noise_E[place] += np.square(found[name] - wanted).sum()
        return decibels(signal_E, noise_E)


def decibels(signal_E: np.ndarray, noise_E: np.ndarray) -> float:
    """SQNR of the mean of the ends' noise-to-signal ratios; an end that is zero throughout says nothing and is left out."""
    counted = signal_E > 0
    if not counted.any():
        return NOISELESS
    ratio = float((noise_E[counted] / signal_E[counted]).mean())
    return NOISELESS if ratio <= 10 ** (-NOISELESS / 10) else -10 * float(np.log10(ratio))
