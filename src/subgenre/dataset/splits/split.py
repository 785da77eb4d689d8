"""Train/test splits by track: stratified by subgenre, grouped by recording, artist and album.

Chunks of one track, copies of one recording, and tracks of one artist or album never stand on both
sides, because a model that knows the artist's sound would look as if it knew the subgenre (Pampalk,
Flexer, Widmer, "Improvements of Audio-Based Music Similarity and Genre Classification", 2005).
A file with a split that breaks this is neither written nor read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subgenre.core.files import read_json, write_json
from subgenre.core.validation import check_range
from subgenre.dataset.splits.drawing import counts, draw, even_folds
from subgenre.dataset.splits.grouping import BY_ARTIST, BY_TRACK, Bonds, LabelledTrack, Rows
from subgenre.errors import ConfigError, SplitError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Split:
    """Track ids for training and held-out track ids.

    Attributes:
        train, test: track ids, sorted.
        seed: of the draw.
        grouped_by: what is never on both sides: `BY_ARTIST` or, as a fallback, `BY_TRACK`.
        warnings: limits of the split that affect the figures.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    seed: int
    grouped_by: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def split(
    tracks: Iterable[LabelledTrack],
    *,
    test_share: float = 0.2,
    seed: int = 0,
    strict_groups: bool = False,
) -> Split:
    """Draw a split with about `test_share` of the tracks held out.

    Every subgenre is on both sides; one with three tracks or more has at least two for training.
    The order of `tracks` has no effect.

    Raises:
        SplitError: a subgenre with a single track; with `strict_groups`, artists or albums that
            leave no such split.
    """
    check_range("test_share", test_share, 0.02, 0.5)
    rows = Rows.of(tracks)
    rows.demand(2, "one for training and one for testing")
    blocked = ""
    for grouped_by in (BY_ARTIST, BY_TRACK):
        test = draw(rows.label, rows.groups(grouped_by), test_share, seed)
        missing = _missing_from_a_side(rows, test)
        if missing is None:
            return _sides(rows, test, seed, grouped_by, _fallback(grouped_by, blocked))
        blocked = rows.blocker(missing)
        if strict_groups:
            break
    raise SplitError(
        f"no split by {', '.join(grouped_by)} has every subgenre on both sides: {blocked}; "
        "add tracks of other artists or disable strict groups"
    )


def folds(
    tracks: Iterable[LabelledTrack], k: int, *, seed: int = 0, strict_groups: bool = False
) -> list[Split]:
    """Cut the tracks into `k` folds; each is the test side of one split, each track tested once.

    Every subgenre is in the training side of every fold. One with fewer than `k` tracks, or fewer
    than `k` artists, is missing from the test side of some folds, and a warning says so.

    Raises:
        SplitError: a subgenre with a single track; none with as many tracks as folds;
            with `strict_groups`, artists or albums that leave no such folds.
    """
    rows = Rows.of(tracks)
    rows.demand(2, "one for training and one for testing")
    largest = int(np.bincount(rows.label).max())
    if not 2 <= k <= largest:
        raise SplitError(
            f"{k} folds were requested and the largest subgenre has {largest} tracks; "
            f"choose 2 to {largest} folds"
        )
    blocked = ""
    for grouped_by in (BY_ARTIST, BY_TRACK):
        fold_of = even_folds(rows.label, rows.groups(grouped_by), k, seed)
        missing = _missing_from_training(rows, fold_of, k)
        if missing is None:
            notes = _fallback(grouped_by, blocked) + _missing_from_tests(rows, fold_of, k)
            return [_sides(rows, fold_of == i, seed, grouped_by, notes) for i in range(k)]
        blocked = rows.blocker(missing)
        if strict_groups:
            break
    raise SplitError(
        f"no {k} folds by {', '.join(grouped_by)} keep every subgenre in training: {blocked}; "
        "change the number of folds, add tracks of other artists, or disable strict groups"
    )


def validation(
    tracks: Iterable[LabelledTrack],
    train: Iterable[str],
    *,
    share: float,
    seed: int = 0,
    strict_groups: bool = False,
) -> Split:
    """Hold out validation tracks from the training side `train` (ids): the split's `test`.

    Tracks are grouped by artist and album. Each subgenre of four tracks or more has at least two
    validation tracks (one alone has no match). If artists or albums prevent this, the subgenre is
    grouped by recording with a warning, or with `strict_groups` stays in training. A smaller
    subgenre may stay there too. With `share` 0 no track is held out.

    Raises:
        SplitError: no subgenre has tracks to spare.
    """
    ids = set(train)
    if share == 0:
        return Split(tuple(sorted(ids)), (), seed, BY_ARTIST)
    rows = Rows.of(track for track in tracks if track.id in ids)
    if not rows.tracks:
        raise SplitError("none of the training tracks is in the library; draw a new split")
    held, blocked = _validated(rows, share, seed, strict_groups=strict_groups)
    if not held.any():
        raise SplitError(
            f"no subgenre has training tracks to spare for validation (share {share:g}); "
            "set val_share to 0 (--set watch.val_share=0)"
        )
    notes = (_blocked(rows, blocked, strict_groups=strict_groups),) if blocked.any() else ()
    return _sides(rows, held, seed, BY_TRACK if notes and not strict_groups else BY_ARTIST, notes)


def _validated(
    rows: Rows, share: float, seed: int, *, strict_groups: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the validation rows, and the labels with fewer than two because of their artists."""
    large = np.bincount(rows.label) >= 4
    blocked = np.zeros(len(large), dtype=bool)
    while True:
        groups = rows.groups(BY_ARTIST, None if strict_groups else blocked)
        held = draw(rows.label, groups, share, seed, least=2)
        if strict_groups:  # whole groups return to training, other labels included
            held &= ~np.isin(groups, groups[blocked[rows.label]])
        short = large & ~blocked & (counts(rows.label, held) < 2)
        if not short.any():
            return held, blocked
        blocked |= short


def _blocked(rows: Rows, blocked: NDArray[np.bool_], *, strict_groups: bool) -> str:
    """Return the warning about subgenres that can't be divided by artist for validation."""
    names = ", ".join(rows.names[i] for i in np.flatnonzero(blocked))
    if strict_groups:
        return f"no validation tracks, because artists and albums can't be divided: {names}"
    return (
        "validation: tracks of one artist or album may be on both sides, because they can't be "
        f"divided: {names}; the choice of the epoch may depend on the artists' sound"
    )


def check_validation(labels: NDArray[np.int64], share: float) -> None:
    """Refuse validation tracks without a defined MAP@R; `labels` are their subgenre numbers.

    Raises:
        ConfigError: no two tracks share a subgenre, or all do.
    """
    each = np.unique(labels, return_counts=True)[1]
    if len(each) < 2 or each.max() < 2:
        raise ConfigError(
            f"watch.val_share is {share:g}, but among the {len(labels)} validation tracks "
            f"{'no two' if len(each) != 1 else 'all'} are of one subgenre; "
            "give --set watch.val_share=0, or add tracks to the small playlists"
        )


def save(value: Split, path: Path, tracks: Iterable[LabelledTrack]) -> None:
    """Write a split as JSON, after `check`.

    Raises:
        SplitError: the split leaks.
    """
    check(value, tracks)
    record = {
        "format_version": FORMAT_VERSION,
        "seed": value.seed,
        "grouped_by": list(value.grouped_by),
        "warnings": list(value.warnings),
        "train": list(value.train),
        "test": list(value.test),
    }
    write_json(path, record)


def load(path: Path, tracks: Iterable[LabelledTrack]) -> Split:
    """Read a split and `check` it.

    Raises:
        SplitError: no such file, a damaged one, or a split that leaks.
    """
    record = read_json(path, version=FORMAT_VERSION, error=SplitError)
    texts: dict[str, tuple[str, ...]] = {}
    for name in ("train", "test", "grouped_by", "warnings"):
        values = record.get(name)
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise SplitError(
                f"{path}: '{name}' is not a list of texts; train again to write a split"
            )
        texts[name] = tuple(values)
    seed = record.get("seed")
    if not isinstance(seed, int):
        raise SplitError(f"{path}: 'seed' is {seed!r}, not a whole number")
    value = Split(texts["train"], texts["test"], seed, texts["grouped_by"], texts["warnings"])
    check(value, tracks)
    return value


def check(value: Split, tracks: Iterable[LabelledTrack]) -> None:
    """Refuse a split with something on both sides.

    Raises:
        SplitError: an unknown id, an empty side, an id twice, or a recording, artist or album (as
            far as `grouped_by` names them) on both sides.
    """
    if value.grouped_by not in (BY_ARTIST, BY_TRACK):
        raise SplitError(f"the split is grouped by {list(value.grouped_by)}; draw a new split")
    by_id: dict[str, list[LabelledTrack]] = defaultdict(list)
    for track in tracks:
        by_id[track.id].append(track)
    ids_of_both = {*value.train, *value.test}
    bonds = Bonds(track for i in ids_of_both for track in by_id.get(i, ()))
    sides: dict[tuple[str, str], str] = {}
    for side, ids in (("train", value.train), ("test", value.test)):
        if not ids:
            raise SplitError(f"the {side} side of the split is empty")
        if len(set(ids)) < len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise SplitError(f"track {twice} is listed twice in the {side} side of the split")
        for track_id in ids:
            if track_id not in by_id:
                raise SplitError(
                    f"track {track_id} of the split is not in the library; "
                    "the split was made for other tracks"
                )
            for track in by_id[track_id]:
                for kind, name in bonds.of(track, value.grouped_by):
                    if sides.setdefault((kind, name), side) != side:
                        raise SplitError(_leak(kind, name, track))


def _leak(kind: str, name: str, track: LabelledTrack) -> str:
    what = f"track {name}" if kind == "recording" else f"{kind} '{name}' (track {track.id})"
    return f"the split leaks: {what} is in training and in test; draw a new split"


def _fallback(grouped_by: tuple[str, ...], blocked: str) -> tuple[str, ...]:
    if grouped_by == BY_ARTIST:
        return ()
    return (
        f"tracks of one artist or album may be on both sides: {blocked}; "
        "the figures may depend on the artists' sound",
    )


def _sides(
    rows: Rows,
    held: NDArray[np.bool_],
    seed: int,
    grouped_by: tuple[str, ...],
    warnings: tuple[str, ...],
) -> Split:
    """Turn a mask of held-out rows into a split."""
    train, test = (
        tuple(sorted({t.id for t, out in zip(rows.tracks, held, strict=True) if out == side}))
        for side in (False, True)
    )
    return Split(train, test, seed, grouped_by, warnings)


def _missing_from_a_side(rows: Rows, held: NDArray[np.bool_]) -> int | None:
    """Return the first label with too few tracks on a side of the split."""
    n_test, n_train = counts(rows.label, held), counts(rows.label, ~held)
    bad = (n_test < 1) | (n_train < np.minimum(2, n_test + n_train - 1))
    return int(bad.argmax()) if bad.any() else None


def _missing_from_training(rows: Rows, fold_of: NDArray[np.int64], k: int) -> int | None:
    """Return the first label with all tracks in one fold; the largest one if a fold is empty."""
    for i in range(k):
        bad = counts(rows.label, fold_of != i) == 0
        if bad.any():
            return int(bad.argmax())
    n_folds = len(np.unique(fold_of))
    return None if n_folds == k else int(np.bincount(rows.label).argmax())


def _missing_from_tests(rows: Rows, fold_of: NDArray[np.int64], k: int) -> tuple[str, ...]:
    n_folds = [len(np.unique(fold_of[rows.label == i])) for i in range(len(rows.names))]
    few = [name for name, n in zip(rows.names, n_folds, strict=True) if n < k]
    if not few:
        return ()
    return (f"not in the test side of all {k} folds: {', '.join(few)}",)
