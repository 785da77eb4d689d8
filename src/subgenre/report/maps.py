"""The map: track vectors in two dimensions by UMAP, and new tracks beside their neighbours.

UMAP's own transform places a new track by the other tracks in the call. Here a new track lies at
the mean of its nearest fitted tracks' coordinates, weighted by nearness: its place depends on
nothing else. Of a large library a sample is fitted, and the others are placed in the same way.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre.core.text import percent
from subgenre.errors import EvaluationError
from subgenre.metrics.vectors import unit

PCA_BELOW = 10  # tracks: fewer make no meaningful graph of neighbours for UMAP
FEWEST, MOST = 15, 50  # neighbours for UMAP: a quarter of the tracks, within these
MIN_DIST = 0.5  # keeps the tracks of a tight cluster apart, so that each can be clicked
FITTED_TRACKS = 10_000  # at most: UMAP's time and memory grow faster than the tracks
PLACE_NEIGHBOURS = 5
CANDIDATES = 10  # nearest by float32, of which the nearest by float64 are taken
BLOCK = 1024  # tracks placed at a time
QUALITY_NEIGHBOURS = 10
QUALITY_TRACKS = 4000  # both figures compare all pairs; a sample of this size gives the same


@dataclass(frozen=True)
class Map:
    """A fitted map.

    Attributes:
        coordinates: [N, 2] of the fitted tracks, in their order.
        method: "UMAP", or "PCA" where there are too few tracks for it.
        trustworthiness: rank-weighted share of neighbours on the map that are neighbours by their
            vectors (Venna and Kaski 2001, eq. 2); None below 3 tracks.
        knn_agreement: share of a track's k nearest vectors that are among its k nearest on the
            map; None below 3 tracks.
        k: the number of neighbours that both figures compare.
        vectors: [N, D] of the fitted tracks, unit norm.
    """

    coordinates: NDArray[np.float64]
    method: str
    trustworthiness: float | None
    knn_agreement: float | None
    k: int
    vectors: NDArray[np.float64]

    @property
    def note(self) -> str:
        """The method and how well the map keeps neighbours, in one line."""
        if self.trustworthiness is None or self.knn_agreement is None:
            return self.method
        return (
            f"{self.method}; trustworthiness {self.trustworthiness:.2f}; "
            f"{percent(self.knn_agreement)} of a track's {self.k} nearest tracks are also its "
            "nearest on the map"
        )

    def place(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Place tracks by their nearest fitted tracks: [M, D] -> [M, 2].

        Inverse-distance weights over the 5 nearest by cosine (Shepard 1968). A track's place
        does not depend on the others in the call.

        Raises:
            EvaluationError: another width than the map's; a vector that is zero or not finite.
        """
        rows = _checked(vectors, self.vectors.shape[1])
        places = np.empty((len(rows), 2))
        fitted = self.vectors.astype(np.float32)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            # a matrix product may round differently with the number of rows: it only preselects
            distant = -(block.astype(np.float32) @ fitted.T)
            few = min(CANDIDATES, len(fitted))
            near = np.sort(np.argpartition(distant, few - 1, axis=1)[:, :few], axis=1)
            cosine = np.einsum("nkd,nd->nk", self.vectors[near], block)
            order = np.argsort(-cosine, axis=1, kind="stable")[:, :PLACE_NEIGHBOURS]
            weight = 1.0 / np.maximum(1.0 - np.take_along_axis(cosine, order, 1), 1e-9)
            nearest = self.coordinates[np.take_along_axis(near, order, 1)]
            total = np.einsum("nk,nkx->nx", weight, nearest)
            places[start : start + BLOCK] = total / weight.sum(axis=1)[:, None]
        return places


def fitted_rows(count: int, seed: int) -> NDArray[np.int64]:
    """Return which of `count` training tracks a map is fitted on: all, or a sample, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:FITTED_TRACKS])


def fit_map(train_vectors: NDArray[np.floating], seed: int) -> Map:
    """Fit a map to the vectors [N, D] of `fitted_rows`; the same seed gives the same map.

    UMAP (McInnes et al. 2018) by cosine with min(15, N - 1) neighbours; PCA below 10 tracks.

    Raises:
        EvaluationError: no track, a value that is not finite, a zero vector.
    """
    vectors = _checked(train_vectors, None)
    if len(vectors) == 0:
        raise EvaluationError("a map needs at least one training track")
    if len(vectors) < PCA_BELOW:
        coordinates, method = _pca(vectors), "PCA"
    else:
        coordinates, method = _umap(vectors, seed), "UMAP"
        if not np.isfinite(coordinates).all():  # the graph does not reach some track
            coordinates, method = _pca(vectors), "PCA"
    trust, agreement, k = _quality(vectors, coordinates, seed)
    return Map(coordinates, method, trust, agreement, k, vectors)


def _quality(
    vectors: NDArray[np.float64], coordinates: NDArray[np.float64], seed: int
) -> tuple[float | None, float | None, int]:
    if len(vectors) > QUALITY_TRACKS:
        chosen = np.random.default_rng(seed).permutation(len(vectors))[:QUALITY_TRACKS]
        vectors, coordinates = vectors[chosen], coordinates[chosen]
    k = min(QUALITY_NEIGHBOURS, (len(vectors) - 1) // 2)
    if k < 1:
        return None, None, 0
    from sklearn.manifold import trustworthiness

    trust = float(trustworthiness(vectors, coordinates, n_neighbors=k, metric="cosine"))
    agreement = knn_agreement(vectors, coordinates, k)
    return trust, agreement, k


def knn_agreement(
    vectors: NDArray[np.floating], coordinates: NDArray[np.floating], k: int
) -> float:
    """Share of each track's `k` nearest vectors (cosine) that are its `k` nearest on the map.

    Shapes: vectors [N, D], unit norm; coordinates [N, 2]. 1 is perfect, k / (N - 1) is chance.
    """
    shares = []
    for row in range(len(vectors)):
        by_vector = _nearest(1.0 - vectors @ vectors[row], row, k)
        on_map = _nearest(((coordinates - coordinates[row]) ** 2).sum(axis=1), row, k)
        shares.append(len(by_vector & on_map) / k)
    return float(np.mean(shares))


def _nearest(distance: NDArray[np.floating], itself: int, k: int) -> set[int]:
    order = np.argsort(distance, kind="stable")
    return set(order[order != itself][:k].tolist())


def _umap(vectors: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    import umap  # its import compiles with numba for seconds

    _keep_compiled()
    rows = vectors.astype(np.float32)
    k = min(max(FEWEST, min(MOST, len(rows) // 4)), len(rows) - 1)
    mapper = umap.UMAP(
        n_neighbors=k,
        min_dist=MIN_DIST,
        metric="cosine",
        random_state=seed,
        n_jobs=1,  # more threads would make the result depend on their order
        precomputed_knn=_neighbours(rows, k),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fallbacks that it takes by itself
        placed = mapper.fit_transform(rows)
    coordinates: NDArray[np.float64] = np.asarray(placed, dtype=np.float64)
    coordinates -= coordinates.mean(axis=0)
    return coordinates


def _neighbours(rows: NDArray[np.float32], k: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return indices and distances [N, k] of each row's nearest, itself first.

    Compiling UMAP's own search takes longer than the search here.
    """
    from sklearn.neighbors import NearestNeighbors

    distance, index = NearestNeighbors(n_neighbors=k, metric="cosine").fit(rows).kneighbors(rows)
    return index, distance.astype(np.float32)


def _keep_compiled() -> None:
    """Let numba cache on disk what it compiles of UMAP."""
    from umap import layouts, umap_

    for module, name in (
        (umap_, "smooth_knn_dist"),
        (umap_, "compute_membership_strengths"),
        (layouts, "_nb_optimize_layout_euclidean_single_epoch"),
    ):
        function = getattr(module, name, None)  # None: another release of UMAP
        with contextlib.suppress(RuntimeError):  # no folder to write the cache to
            if function is not None and not function.signatures:
                function.enable_caching()


def _pca(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = vectors - vectors.mean(axis=0)
    left, scale, right = np.linalg.svd(centred, full_matrices=False)
    # the signs of an SVD are arbitrary: make the largest loading of each axis positive
    largest = np.argmax(np.abs(right), axis=1)
    sign = np.where(right[np.arange(len(right)), largest] < 0, -1.0, 1.0)
    projected = (left * scale * sign)[:, :2]
    return np.pad(projected, ((0, 0), (0, 2 - projected.shape[1])))


def _checked(vectors: NDArray[np.floating], width: int | None) -> NDArray[np.float64]:
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or (width is not None and rows.shape[1] != width):
        expected = "[N, D]" if width is None else f"[N, {width}]"
        raise EvaluationError(f"vectors have shape {list(rows.shape)}; the map takes {expected}")
    norm = np.linalg.norm(rows, axis=1)
    bad = np.flatnonzero(~(np.isfinite(norm) & (norm > 0)))
    if bad.size:
        what = "zero" if norm[bad[0]] == 0 else "not finite"
        raise EvaluationError(
            f"the vector of track number {bad[0]} is {what}"
            f" ({bad.size} such in all); embed these tracks again, or leave them out"
        )
    return unit(rows)
