"""Two-sample tests by permutation of whole pictures, and their combination into one alarm.

Objects on one picture are alike, so the unit that is relabelled is the picture, never the object: relabelled objects would
count a crowded picture as hundreds of observations and alarm at every one. Each test sees both sets only as a weight per
picture, so all of them share the same relabellings. Exact at any sample size as long as the pictures of both sets are
exchangeable: independent shots of the same process (frames of one film are not).
Sources: Phipson & Smyth 2010 (p-values of permutation tests are never zero); Anderson & Darling 1952, Scholz & Stephens 1987;
Gretton et al. 2012 (maximum mean discrepancy); Holm 1979.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
BLOCK = 500
"""Relabellings at a time."""
TIE, LEAST = 1e-9, 1e-12
"""Relative and absolute difference below which two distances are equal: the same values summed in another order."""
COMPONENTS = 32
"""Directions in which vectors are compared; the hundreds further ones of an inner layer are noise that hides a difference."""
BINS = 64
"""Cells of an ordered histogram, cut at quantiles of both sets together."""


class Comparison(Protocol):
    """A distance between two sets of pictures; N is the number of pictures of both."""

    def distances(self, new_BN: NDArray[np.bool_]) -> Real:
        """The distance [B] under each labelling: True marks the pictures of the new set."""

    def effect(self, new_N: NDArray[np.bool_]) -> float:
        """How far apart the sets are, 0 (equal) to 1, whatever their sizes."""


class Ordered:
    """Values with an order, any number of them per picture: a weighted squared distance of the cumulated shares.

    The weights are Anderson's and Darling's, so that the ends of the scale count as much as its middle.
    """

    def __init__(self, picture_V: NDArray[np.int64], value_V: Real, pictures: int) -> None:
        """Value v belongs to picture `picture_V[v]` of 0..pictures-1."""
        edges = np.unique(np.quantile(value_V, np.linspace(0, 1, BINS + 1)[1:-1])) if len(value_V) else np.zeros(0)
        cell_V = np.searchsorted(edges, value_V, side="left")
        self.count_NK = _counts(picture_V, cell_V, pictures, len(edges) + 1)
        share_K = np.cumsum(self.count_NK.sum(axis=0))[:-1] / max(len(value_V), 1)
        self.weight_K = 1 / np.maximum(share_K * (1 - share_K), 1e-12)
        self.weight_K[(share_K <= 0) | (share_K >= 1)] = 0

    def distances(self, new_BN: NDArray[np.bool_]) -> Real:
        new_BK, known_BK = _shares(self.count_NK, new_BN)
        gap_BK = np.cumsum(new_BK - known_BK, axis=1)[:, :-1]
        return np.asarray(gap_BK**2 @ self.weight_K, np.float64)

    def effect(self, new_N: NDArray[np.bool_]) -> float:
        """Kolmogorov's and Smirnov's distance."""
        new_1K, known_1K = _shares(self.count_NK, new_N[None])
        return float(np.abs(np.cumsum(new_1K - known_1K, axis=1)).max(initial=0))


class Nominal:
    """Kinds without an order, any number of them per picture: the chi-square distance of the shares."""

    def __init__(self, picture_V: NDArray[np.int64], kind_V: NDArray[np.int64], pictures: int, kinds: int) -> None:
        """Value v belongs to picture `picture_V[v]` of 0..pictures-1 and is of kind `kind_V[v]` of 0..kinds-1."""
        self.count_NK = _counts(picture_V, kind_V, pictures, kinds)
        total_K = self.count_NK.sum(axis=0)
        self.weight_K = np.where(total_K > 0, total_K.sum() / np.maximum(total_K, 1), 0)

    def distances(self, new_BN: NDArray[np.bool_]) -> Real:
        new_BK, known_BK = _shares(self.count_NK, new_BN)
        return np.asarray((new_BK - known_BK) ** 2 @ self.weight_K, np.float64)

    def effect(self, new_N: NDArray[np.bool_]) -> float:
        """Total variation: the share of the objects that would have to change their class."""
        new_1K, known_1K = _shares(self.count_NK, new_N[None])
        return float(np.abs(new_1K - known_1K).sum() / 2)


class Vectors:
    """A vector per picture: squared maximum mean discrepancy with a Gaussian kernel, as wide as the median distance.

    Directions, scales and kernel width come from both sets together, so no labelling is special.
    """

    def __init__(self, vector_NE: NDArray[np.floating]) -> None:
        squared_NN = squared_distances(whitened(vector_NE))
        apart = squared_NN[np.triu_indices(len(squared_NN), 1)]
        width = float(np.median(apart)) if len(apart) else 0.0
        self.kernel_NN = np.exp(-squared_NN / width) if width > 0 else (squared_NN <= 0).astype(np.float64)

    def distances(self, new_BN: NDArray[np.bool_]) -> Real:
        new = new_BN.sum(axis=1, keepdims=True)
        weight_BN = np.where(new_BN, 1 / np.maximum(new, 1), -1 / np.maximum(new_BN.shape[1] - new, 1))
        return np.asarray(((weight_BN @ self.kernel_NN) * weight_BN).sum(axis=1), np.float64)

    def effect(self, new_N: NDArray[np.bool_]) -> float:
        """The unbiased discrepancy over the kernel's mean within the sets: 0 on average where they are equal."""
        within = [_mean_apart(self.kernel_NN[np.ix_(side, side)]) for side in (new_N, ~new_N)]
        across = float(self.kernel_NN[np.ix_(new_N, ~new_N)].mean())
        return float(np.clip((sum(within) / 2 - across) / max(sum(within) / 2, 1e-12), 0, 1))


def standardised(vector_NE: NDArray[np.floating]) -> Real:
    """Each column with mean 0 and deviation 1; constant ones are 0."""
    centred_NE = np.asarray(vector_NE, np.float64) - np.mean(vector_NE, axis=0, dtype=np.float64)
    deviation_E = centred_NE.std(axis=0)
    return np.asarray(centred_NE / np.where(deviation_E > 1e-12, deviation_E, np.inf), np.float64)


def whitened(vector_NE: NDArray[np.floating], most: int = COMPONENTS) -> Real:
    """The first principal components [N, C] of the standardised columns, each with the same spread; `most` at most."""
    left_NC, strength_C, _ = np.linalg.svd(standardised(vector_NE), full_matrices=False)
    kept = int((strength_C[:most] > 1e-9 * max(float(strength_C.max(initial=0)), 1e-9)).sum())
    return np.asarray(left_NC[:, :kept] * np.sqrt(len(left_NC)), np.float64)


def squared_distances(vector_NE: Real) -> Real:
    """[N, N]; the diagonal is exactly 0."""
    square_N = (vector_NE**2).sum(axis=1)
    squared_NN = np.maximum(square_N[:, None] + square_N - 2 * vector_NE @ vector_NE.T, 0)
    np.fill_diagonal(squared_NN, 0)
    return np.asarray(squared_NN, np.float64)


def p_values(tests: Mapping[str, Comparison], new: int, known: int, permutations: int, seed: int) -> dict[str, float]:
    """The p-value of each test, the first `new` pictures against the `known` ones after them.

    The share of labellings, the observed one included, that are as far apart: at least 1 / (permutations + 1).
    """
    observed_1N = (np.arange(new + known) < new)[None]
    observed = {name: float(test.distances(observed_1N)[0]) for name, test in tests.items()}
    as_far = dict.fromkeys(tests, 0)
    for new_BN in relabelled(new, known, permutations, np.random.default_rng(seed)):
        for name, test in tests.items():
            least = observed[name] - TIE * abs(observed[name]) - LEAST
            as_far[name] += int(np.count_nonzero(test.distances(new_BN) >= least))
    return {name: (count + 1) / (permutations + 1) for name, count in as_far.items()}


def relabelled(new: int, known: int, permutations: int, rng: np.random.Generator) -> Iterator[NDArray[np.bool_]]:
    """Random labellings [B, N] with `new` pictures in the new set, a block at a time."""
    for start in range(0, permutations, BLOCK):
        order_BN = rng.random((min(BLOCK, permutations - start), new + known)).argsort(axis=1)
        yield order_BN < new


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: with all of them chance, one is below a level at most as often as the level says."""
    adjusted, worst = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        worst = max(worst, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = worst
    return adjusted


def _counts(picture_V: NDArray[np.int64], cell_V: NDArray[np.int64], pictures: int, cells: int) -> Real:
    """Values per picture and cell [N, K]."""
    flat = np.bincount(picture_V * cells + cell_V, minlength=pictures * cells)
    return flat.reshape(pictures, cells).astype(np.float64)


def _shares(count_NK: Real, new_BN: NDArray[np.bool_]) -> tuple[Real, Real]:
    """The histogram of the new set and of the other one under each labelling [B, K]; of a set without values all zero."""
    new_BK = new_BN.astype(np.float64) @ count_NK
    known_BK = count_NK.sum(axis=0) - new_BK
    new, known = (side.sum(axis=1, keepdims=True) for side in (new_BK, known_BK))
    return new_BK / np.maximum(new, 1), known_BK / np.maximum(known, 1)


def _mean_apart(kernel_NN: Real) -> float:
    """Mean over pairs of different pictures."""
    count = len(kernel_NN)
    return float((kernel_NN.sum() - np.trace(kernel_NN)) / max(count * (count - 1), 1))
