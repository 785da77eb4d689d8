"""The subgenre of a track, with a calibrated probability, or "none of these".

A track gets the subgenre of the nearest centroid, as in the evaluation, and three figures:

- the probability of each subgenre: a softmax over the cosines to the centroids, divided by one
  temperature, fitted on held-out tracks (Guo et al., "On calibration of modern neural networks",
  ICML 2017, section 4.2). It has one parameter, because a library has a dozen held-out tracks
  for each subgenre, not hundreds. Targets are smoothed as in Platt 1999, section 2.2, so that a
  small set without errors does not give probabilities of 1;
- the p-value of belonging to any: the distance to the nearest subgenre (`search.gaussians`),
  ranked among the held-out tracks by split conformal prediction. A track is "none of these" if
  p <= alpha, which rejects at most a share alpha of the tracks that do belong;
- the most typical chunk: the one with the highest probability of the subgenre.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre.config import ALPHA
from subgenre.errors import EvaluationError
from subgenre.metrics.vectors import unit
from subgenre.search.conformal import p_values
from subgenre.search.gaussians import Gaussians

Label = tuple[str, str]  # genre, subgenre
Doubles = NDArray[np.float64]

FOLDS = 5  # where no tracks are held out to calibrate on
_COLDEST, _HOTTEST = 1e-3, 10.0  # bounds of the temperature
_HALVINGS = 40  # of their ratio, on a scale of logarithms


@dataclass(frozen=True)
class Placement:
    """The subgenre of one track, or none of them.

    Attributes:
        track: as it was given. genre, subgenre: empty if it is none of these.
        nearest: the nearest subgenre, even if it is none of these.
        fits: how well it fits `nearest`: the calibrated probability that it belongs.
        p_value: of belonging to any subgenre; none of these if it is at most alpha.
        none_right: how often "none of these" is right for this model, if half of the tracks are of
            other subgenres; NaN where that is not measured.
        chances: how well it fits every subgenre, highest first.
        chunk_start_s: start of the chunk most typical of `nearest`, seconds; NaN without
            chunks. chunk_fits: how well that chunk alone fits `nearest`.
    """

    track: Any
    genre: str
    subgenre: str
    nearest: Label
    fits: float
    p_value: float
    chances: tuple[tuple[Label, float], ...]
    chunk_start_s: float = math.nan
    chunk_fits: float = math.nan
    none_right: float = math.nan

    @property
    def belongs(self) -> bool:
        """Whether it belongs to one of the subgenres."""
        return bool(self.subgenre)

    def row(self) -> dict[str, Any]:
        """Return plain values for CSV and JSON."""
        has_chunk = not math.isnan(self.chunk_start_s)
        second, second_fits = self.chances[1]
        return {
            "path": str(Path(self.track.path)),
            "genre": self.genre,
            "subgenre": self.subgenre,
            "fits": round(self.fits, 4),
            "none_of_these": not self.belongs,
            "none_right": None
            if self.belongs or math.isnan(self.none_right)
            else round(self.none_right, 4),
            "p_value": round(self.p_value, 4),
            "nearest_genre": self.nearest[0],
            "nearest_subgenre": self.nearest[1],
            "second_genre": second[0],
            "second_subgenre": second[1],
            "second_fits": round(second_fits, 4),
            "chunk_start_s": round(self.chunk_start_s, 2) if has_chunk else None,
            "chunk_fits": round(self.chunk_fits, 4) if has_chunk else None,
            "id": self.track.id,
        }


@dataclass(frozen=True)
class Classifier:
    """Centroids, temperature and calibration scores; `fit` makes it.

    Attributes:
        labels: L pairs (genre, subgenre), sorted. centroids: [L, D], unit norm.
        temperature: of the softmax. gaussians: of the training tracks.
        calibration: [n], scores of the calibration tracks. alpha: error rate of "none of these".
        held_out: whether those tracks were held out of training. Otherwise each was left out of
            its own centroid and distances, and probabilities are too high.
        none_right: as of `Placement`.
    """

    labels: tuple[Label, ...]
    centroids: NDArray[np.float32]
    temperature: float
    gaussians: Gaussians
    calibration: Doubles
    alpha: float
    held_out: bool
    none_right: float = math.nan

    def probabilities(self, vectors: NDArray[np.floating]) -> Doubles:
        """Calibrated probability of each subgenre for vectors [B, D]: [B, L], rows sum to 1."""
        cosines = _unit(vectors) @ self.centroids.T
        return _softmax(cosines.astype(np.float64) / self.temperature)

    def p_value(self, vectors: NDArray[np.floating]) -> Doubles:
        """p-value of belonging to any of the subgenres for vectors [B, D]: [B], in (0, 1]."""
        return p_values(self.calibration, self.gaussians.nearness(_unit(vectors)))

    def place(
        self,
        tracks: Sequence[Any],
        vectors: NDArray[np.floating],
        *,
        chunks: Sequence[NDArray[np.floating]] | None = None,
        starts_s: Sequence[Sequence[float]] = (),
    ) -> list[Placement]:
        """Classify B tracks (objects with `id` and `path`) by their vectors [B, D].

        `chunks` are each track's chunk vectors [n, D], `starts_s` their starts in seconds.
        """
        if not len(tracks):
            return []
        values = _checked(vectors, self.centroids.shape[1])
        placed = []
        every_chance, p_value = self.probabilities(values), self.p_value(values)
        for i, track in enumerate(tracks):
            chances = every_chance[i]
            order = np.argsort(-chances, kind="stable")
            best = self.labels[order[0]]
            genre, subgenre = best if p_value[i] > self.alpha else ("", "")
            start_s = chunk_chance = math.nan
            if chunks is not None and len(chunks[i]):
                of_chunks = self.probabilities(chunks[i])[:, order[0]]
                start_s = float(starts_s[i][int(np.argmax(of_chunks))])
                chunk_chance = float(of_chunks.max())
            ranked = tuple((self.labels[j], float(chances[j])) for j in order)
            known = (ranked[0][1], float(p_value[i]), ranked)
            figures = (*known, start_s, chunk_chance, self.none_right)
            placed.append(Placement(track, genre, subgenre, best, *figures))
        return placed


def fit(
    vectors: NDArray[np.floating],
    labels: Sequence[Label],
    *,
    calibration: tuple[NDArray[np.floating], Sequence[Label]] | None = None,
    alpha: float = ALPHA,
    none_right: float = math.nan,
) -> Classifier:
    """Fit centroids on training tracks, and calibrate on tracks held out of training.

    Args:
        vectors: of the training tracks, [N, D]. labels: (genre, subgenre) of each.
        calibration: vectors [n, D] and labels of held-out tracks. Without them every training
            track is left out in turn; the probabilities are then too high.
        alpha: share of tracks of the subgenres that may be rejected as none of these.
        none_right: as of `Placement`.

    Raises:
        EvaluationError: fewer than two subgenres; a held-out track of another one; vectors that
            are zero or not finite; alpha not in (0, 1).
    """
    if not 0 < alpha < 1:
        raise EvaluationError(f"alpha is {alpha}; it must lie between 0 and 1, such as {ALPHA}")
    known = tuple(sorted(set(labels)))
    if len(known) < 2:
        raise EvaluationError(f"{len(known)} subgenres: classification needs at least two")
    x, y = _rows(vectors, labels, known, None)
    sums = np.stack([x[y == i].sum(axis=0) for i in range(len(known))])
    centroids, gaussians = _unit(sums), Gaussians.fit(x, y)
    if calibration is None:
        cosines, targets, scores = _left_out(x, y, sums, centroids)
    else:
        held, targets = _rows(*calibration, known, x.shape[1])
        cosines, scores = held @ centroids.T, gaussians.nearness(held)
    temperature = _temperature(cosines, targets)
    held_out = calibration is not None
    return Classifier(known, centroids, temperature, gaussians, scores, alpha, held_out, none_right)


def _rows(
    vectors: NDArray[np.floating], labels: Sequence[Label], known: Sequence[Label], dim: int | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Check vectors and turn labels into numbers."""
    if len(vectors) != len(labels):
        raise EvaluationError(f"{len(vectors)} vectors have {len(labels)} labels")
    unknown = sorted(set(labels) - set(known))
    if unknown:
        raise EvaluationError(
            f"the held-out tracks have {'/'.join(unknown[0])}, the training tracks do not; "
            "calibrate on the same subgenres"
        )
    number = {label: i for i, label in enumerate(known)}
    return _checked(vectors, dim), np.array([number[label] for label in labels], dtype=np.int64)


def _left_out(
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    sums: NDArray[np.float32],
    centroids: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.int64], Doubles]:
    """Return cosines, label and score of each training track with itself left out.

    For the score, a fifth of the tracks is left out at a time. The only track of a subgenre is
    dropped.
    """
    rows = np.flatnonzero(np.bincount(y, minlength=len(centroids))[y] > 1)
    if not len(rows):
        raise EvaluationError("every subgenre has one track, so none can be left out to calibrate")
    cosines = x @ centroids.T
    own = _unit(sums[y[rows]] - x[rows])
    cosines[rows, y[rows]] = (x[rows] * own).sum(axis=1)
    near = np.empty(len(rows))
    by_subgenre = rows[np.argsort(y[rows], kind="stable")]
    for fold in range(FOLDS):  # each takes every fifth track of each subgenre
        out = by_subgenre[fold::FOLDS]
        kept = np.setdiff1d(np.arange(len(x)), out)
        others = np.unique(y[kept], return_inverse=True)[1]
        near[np.isin(rows, out)] = Gaussians.fit(x[kept], others).nearness(x[np.sort(out)])
    return cosines[rows], y[rows], near


def _temperature(cosines: NDArray[np.floating], targets: NDArray[np.int64]) -> float:
    """Return the temperature of least cross-entropy, by bisection: it is convex in the inverse."""
    count, classes = cosines.shape
    wrong = 1.0 / (count + 2)
    smoothed = np.full((count, classes), wrong / (classes - 1))
    smoothed[np.arange(count), targets] = 1.0 - wrong

    logits, low, high = cosines.astype(np.float64), _COLDEST, _HOTTEST
    for _ in range(_HALVINGS):
        temperature = math.sqrt(low * high)
        slope = ((_softmax(logits / temperature) - smoothed) * logits).sum()  # in the inverse
        low, high = (temperature, high) if slope > 0 else (low, temperature)
    return math.sqrt(low * high)


def _softmax(logits: Doubles) -> Doubles:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    return unit(np.asarray(vectors, dtype=np.float64)).astype(np.float32)


def _checked(vectors: NDArray[np.floating], dim: int | None) -> NDArray[np.float32]:
    """Check a table of vectors and scale them to norm 1."""
    x = np.asarray(vectors)
    if x.ndim != 2 or (dim is not None and x.shape[1] != dim):
        raise EvaluationError(f"vectors have shape {x.shape}; [tracks, {dim or 'D'}] is needed")
    if not np.isfinite(x).all() or not np.abs(x).max(axis=1, initial=0.0).all():
        raise EvaluationError("a vector is zero or not finite")
    return _unit(x)
