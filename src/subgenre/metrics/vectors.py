"""Checked vectors and labels, cosine similarity, and one order of neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subgenre.errors import EvaluationError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK = 4096  # rows that are read at a time
CONSTANT = 1e-6  # a column whose deviation is below this share of its largest value is constant
# Similarities closer than this are ties: they differ by rounding alone.
_DECIMALS = 12


def check_vectors(vectors: ArrayLike, what: str) -> Floats:
    """Return `vectors` [N, D] at norm 1 in float64.

    Raises:
        EvaluationError: no track, or a vector that is zero or holds NaN or infinity.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    if not len(rows):
        raise EvaluationError(f"there are no {what} tracks to score")
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise EvaluationError(
            f"{what} vector {int(bad.argmax())} ({int(bad.sum())} in all) holds NaN or infinity; "
            "the model is damaged: train it again"
        )
    zero = ~rows.any(axis=1)
    if zero.any():
        raise EvaluationError(f"{what} vector {int(zero.argmax())} is zero: no direction")
    return unit(rows)


def check_pair(vectors: ArrayLike, labels: ArrayLike, what: str) -> tuple[Floats, Ints]:
    """Return `vectors` [N, D] as `check_vectors` does, and `labels` [N] as whole numbers.

    Raises:
        EvaluationError: see `check_vectors`; shapes that don't match, a label below 0.
    """
    shape, numbers = np.shape(vectors), np.asarray(labels)
    if len(shape) != 2 or numbers.shape != shape[:1]:
        raise EvaluationError(
            f"{what} vectors have shape {shape} and labels {numbers.shape}; give [N, D] and [N]"
        )
    rows = check_vectors(vectors, what)
    if numbers.dtype.kind not in "iu" or numbers.min() < 0:
        raise EvaluationError(f"{what} labels must be whole numbers from 0; leave trash out")
    return rows, numbers.astype(np.int64)


def unit(rows: Floats) -> Floats:
    """Return `rows` [N, D] at norm 1; a row of zeros stays zero."""
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norm == 0, 1.0, norm))


def standardisation(vectors: ArrayLike) -> tuple[Floats, Floats]:
    """Return mean and population deviation of each column of [n, ...]; 0 for a constant one."""
    values = np.asarray(vectors, dtype=np.float64)
    mean, std = values.mean(axis=0), values.std(axis=0)
    return mean, np.where(std > CONSTANT * np.abs(values).max(axis=0), std, 0.0)


def moments_of(values: NDArray[np.floating], rows: Ints) -> tuple[Floats, Floats]:
    """Return mean and population deviation of each column of some rows of [n, ...].

    The rows are read block by block, so that `values` may be larger than the memory.
    """
    mean, square = (np.zeros(values.shape[1:]) for _ in range(2))
    for block in blocks(values, rows):
        mean += block.sum(axis=0) / len(rows)
    for block in blocks(values, rows):
        square += ((block - mean) ** 2).sum(axis=0) / len(rows)
    return mean, np.sqrt(square)


def blocks(values: NDArray[np.floating], rows: Ints) -> Iterator[Floats]:
    """Yield some rows of [n, ...] in float64, a few thousand at a time."""
    for start in range(0, len(rows), BLOCK):
        yield values[rows[start : start + BLOCK]].astype(np.float64)


def standardised(vectors: ArrayLike, mean: ArrayLike, std: ArrayLike) -> Floats:
    """Scale columns to mean 0 and deviation 1; a column of deviation 0 becomes 0."""
    deviation = np.asarray(std, dtype=np.float64)
    values = np.asarray(vectors, dtype=np.float64) - np.asarray(mean, dtype=np.float64)
    return np.divide(values, deviation, out=np.zeros_like(values), where=deviation > 0)


def need_classes(labels: Ints, what: str) -> None:
    """Refuse labels of one class, which leave nothing to compare."""
    found = len(np.unique(labels))
    if found < 2:
        raise EvaluationError(f"the {what} tracks are all of one class; 2 or more are needed")


def similarities(queries: Floats, candidates: Floats) -> Floats:
    """Return the cosine similarities [Q, N] of unit rows, rounded so that equal ones tie."""
    return np.asarray(np.round(queries @ candidates.T, _DECIMALS))


def neighbour_order(similarity: Floats) -> Ints:
    """Return the candidates of each query, nearest first, [Q, N].

    Ties come in one fixed random order: in the order of the rows, sorted by label as a rule, a
    collapsed embedding would score as if it knew the labels.
    """
    shuffled = np.random.default_rng(0).permutation(similarity.shape[1])
    return np.asarray(shuffled[np.argsort(-similarity[:, shuffled], axis=1, kind="stable")])


def one_hot(labels: Ints, n: int) -> Floats:
    """Return `labels` [..., N] as zeros and ones, [..., N, n]."""
    return np.asarray(labels[..., None] == np.arange(n), dtype=np.float64)


def times(matrix: Floats, stack: Floats) -> Floats:
    """Return `matrix` [M, N] times each of `stack` [S, N, C], as one product: [S, M, C]."""
    S, N, C = stack.shape
    flat = matrix @ stack.transpose(1, 0, 2).reshape(N, S * C)
    return np.asarray(flat.reshape(-1, S, C).transpose(1, 0, 2))
