"""The summary of a report in plain words: what was learnt, what was not, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from subgenre.report.data import Figure, Pair, ReportData

METRIC = "centroid_accuracy"
NAMED_PAIRS = 4
COARSE_POINTS = 3.0  # one track of the test side moves the figure by at least so many points
Z95 = 1.959964


def sentences(data: ReportData) -> list[str]:
    """Say in sentences what the figures say; the first is the verdict.

    Whatever is absent is passed over; without any figure the one sentence says so.
    """
    found = main_figure(data)
    if found is None:
        return ["There are no figures of held-out tracks: nothing can be said about this model."]
    said = [_verdict(found), *_training_gain(data, found), *_pairs(data), *_coarseness(data)]
    tables = (data.confounders, data.leakage, data.open_set, data.hubness)
    said += [table.headline for table in tables if table is not None and table.headline]
    return said


def learnt_nothing(data: ReportData) -> bool:
    """Whether the interval of the main figure holds chance, or lies below it."""
    found = main_figure(data)
    return found is not None and _no_better_than_guessing(found)


def main_figure(data: ReportData) -> Figure | None:
    """Centroid accuracy of the main rung; a missing interval is Wilson's, from the test tracks."""
    found = data.score(data.main, METRIC)
    if found is None or found.has_interval or not data.n_test:
        return found
    low, high = wilson(found.value, data.n_test)
    return Figure(found.value, low, high, found.chance)


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share among `n` tracks (Wilson 1927, eq. 6)."""
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2)) / (1 + Z95**2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def percent(share: float) -> str:
    """A share as a percentage: whole, or with one digit below 10 %."""
    points = round(100 * share, 1)
    digits = 1 if abs(points) < 9.95 and points % 1 else 0
    return f"{points:.{digits}f} %"


def with_interval(found: Figure) -> str:
    """A share with half its interval: `83 % ± 4`."""
    half = found.half_width
    return percent(found.value) if half is None else f"{percent(found.value)} ± {100 * half:.0f}"


def joined(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _no_better_than_guessing(found: Figure) -> bool:
    if found.chance is None:
        return False
    return (found.value if found.low is None else found.low) <= found.chance


def _verdict(found: Figure) -> str:
    held = f"{with_interval(found)} of held-out tracks find home"
    if found.chance is None:
        return f"{held}; what chance would give is not known."
    held += f", {percent(found.chance)} by chance"
    if _no_better_than_guessing(found):
        return f"The model does no better than guessing: {held}. Nothing was learnt."
    lift = (found.value - found.chance) / max(1e-9, 1 - found.chance)
    apart = (
        "can be told apart" if lift >= 0.5
        else "can be told apart in part" if lift >= 0.2
        else "can hardly be told apart"
    )  # fmt: skip
    return f"Your playlists {apart}: {held}."


def _training_gain(data: ReportData, found: Figure) -> list[str]:
    base = data.score(data.baseline, METRIC)
    if base is None or data.baseline == data.main:
        return []
    gain = 100 * (found.value - base.value)
    start = f"The {data.baseline} backbone alone reaches {with_interval(base)}"
    if abs(gain) < 0.5:
        return [f"{start}: training added nothing to this figure."]
    word = "added" if gain > 0 else "cost"
    points = f"{abs(gain):.0f} point{'' if round(abs(gain)) == 1 else 's'}"
    overlap = _overlap(found, base)
    sure = "; the intervals overlap, so that is not certain" if overlap else ""
    return [f"{start}; training {word} {points}{sure}."]


def _overlap(a: Figure, b: Figure) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.low <= b.high and b.low <= a.high


def _pairs(data: ReportData) -> list[str]:
    missed = [pair for pair in data.pairs if pair.told_apart is False]
    if not missed:
        judged = [pair for pair in data.pairs if pair.told_apart]
        every = len(judged) == len(data.pairs) and len(judged) > 1
        return [f"Each of the {len(judged)} pairs can be told apart."] if every else []
    more = len(missed) - NAMED_PAIRS
    if more > 0:
        named = ", ".join(_pair_words(pair) for pair in missed[:NAMED_PAIRS])
        return [f"{named} and {more} more pair{'s' if more > 1 else ''} are not told apart."]
    return [f"{_pair_words(pair)} are not told apart." for pair in missed]


def _pair_words(pair: Pair) -> str:
    return f"{pair.a} and {pair.b}"


def _coarseness(data: ReportData) -> list[str]:
    if not data.n_test:
        return []
    step = 100 / data.n_test
    said = []
    if step >= COARSE_POINTS:
        said.append(
            f"With {data.n_test} held-out tracks one track is {step:.0f} points: "
            "read the figures that coarsely."
        )
    # over folds each track is held out once
    by_subgenre = data.counts().values()
    sizes = [sum(c.values()) - c["new"] if data.folds else c["test"] for c in by_subgenre]
    held = [size for size in sizes if size]
    if held and min(held) <= 10:
        said.append(
            f"The smallest subgenre has {min(held)} held-out track{'s' if min(held) > 1 else ''}: "
            f"there one track is {100 / min(held):.0f} points."
        )
    return said
