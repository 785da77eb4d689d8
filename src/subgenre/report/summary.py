"""The summary of a report in plain words: what was learnt, what was not, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

from subgenre.core.text import percent, percent_interval
from subgenre.metrics import wilson
from subgenre.report.data import UNSURE, Figure, Pair, ReportData

METRIC = "centroid_accuracy"
NAMED_PAIRS = 4
FEW_TRACKS = 20  # held out: with fewer an interval spans a third of the scale and more
IN_PART, WELL = 0.2, 0.5  # of the way from chance to all right
# rungs that hear no music to speak of, and what is said of them
PLAIN = {
    "tempo_loudness": "Tempo and loudness alone reach",
    "mean_log_mel": "The mean spectrum alone reaches",
}
COARSE_POINTS = 3.0  # one track of the test side moves the figure by at least so many points


def sentences(data: ReportData) -> list[str]:
    """Say in sentences what the figures say; the first is the verdict.

    Whatever is absent is passed over; without any figure the one sentence says so.
    """
    found = main_figure(data)
    if found is None:
        return ["There are no figures of held-out tracks: nothing can be said about this model."]
    said = [_verdict(data, found), *_training_gain(data, found), *_plain_rungs(data, found)]
    said += [*_pairs(data), *_coarseness(data)]
    tables = (data.confounders, data.leakage, data.open_set, data.hubness)
    said += [table.headline for table in tables if table is not None and table.headline]
    return said


def learnt_nothing(data: ReportData) -> bool:
    """Whether the main figure is no better than guessing, and there are tracks enough to say so."""
    found = main_figure(data)
    return found is not None and _no_better_than_guessing(found) and not cannot_tell(data)


def cannot_tell(data: ReportData) -> bool:
    """Whether guessing and learning are both still possible, the held-out tracks being few."""
    found = main_figure(data)
    if found is None or found.chance is None or found.high is None:
        return False
    if not _no_better_than_guessing(found) or found.high <= found.chance:
        return False
    return _few(data) or _lift(found.high, found.chance) >= WELL


def main_figure(data: ReportData) -> Figure | None:
    """Centroid accuracy of the main rung; a missing interval is Wilson's, from the test tracks."""
    found = data.score(data.main, METRIC)
    if found is None or found.has_interval or not data.n_test:
        return found
    low, high = wilson(found.value, data.n_test)
    return Figure(found.value, low, high, found.chance)


def with_interval(found: Figure) -> str:
    """A share with its interval, which may be lopsided: `83 % (78 to 86)`."""
    if found.low is None or found.high is None:
        return percent(found.value)
    return percent_interval(found.value, found.low, found.high)


def _no_better_than_guessing(found: Figure) -> bool:
    if found.chance is None:
        return False
    return (found.value if found.low is None else found.low) <= found.chance


def _few(data: ReportData) -> bool:
    return 0 < data.n_test < FEW_TRACKS


def _lift(share: float, chance: float) -> float:
    """How far a share is on the way from chance, 0, to all tracks right, 1."""
    return (share - chance) / max(1e-9, 1 - chance)


def _verdict(data: ReportData, found: Figure) -> str:
    held = f"{with_interval(found)} of held-out tracks find home"
    if found.chance is None:
        return f"{held}; what chance would give is not known."
    held += f", {percent(found.chance)} by chance"
    if cannot_tell(data):
        return f"Too few tracks were held out to tell learning from guessing: {held}."
    if _no_better_than_guessing(found):
        shown = f" that {data.n_test} held-out tracks can show" if data.n_test else ""
        return f"The model does no better than guessing: {held}. Nothing was learnt{shown}."
    if _few(data):
        few = f"{data.n_test} held-out tracks are too few to say by how much"
        return f"The model does better than guessing, but {few}: {held}."
    lift = _lift(found.value, found.chance)
    apart = (
        "can be told apart" if lift >= WELL
        else "can be told apart in part" if lift >= IN_PART
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


def _plain_rungs(data: ReportData, found: Figure) -> list[str]:
    """Name the simplest rungs that the model is not clearly ahead of."""
    base = data.score(data.baseline, METRIC)
    said = []
    for name, start in PLAIN.items():
        rung = data.score(name, METRIC)
        if rung is None or not (_overlap(found, rung) or rung.value >= found.value):
            continue
        line = f"{start} {with_interval(rung)}{_as_far(rung, found, 'this model')}"
        if base is not None and rung.value < found.value:
            line += _as_far(rung, base, f"the {data.baseline} backbone")
        if rung.value < found.value:
            line += "; the intervals overlap, so it is not certain that the model does better"
        said.append(f"{line}.")
    return said


def _as_far(rung: Figure, other: Figure, name: str) -> str:
    gap = 100 * (rung.value - other.value)
    return "" if gap <= -0.5 else f", {'as much as' if gap < 0.5 else 'more than'} {name}"


def _overlap(a: Figure, b: Figure) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.low <= b.high and b.low <= a.high


def _pairs(data: ReportData) -> list[str]:
    missed = [pair for pair in data.pairs if pair.told_apart is False]
    open_ones = [pair for pair in data.pairs if pair.verdict == UNSURE]
    unsure = [f"Unsure whether they can be told apart: {_named(open_ones)}."] if open_ones else []
    if not missed:
        judged = [pair for pair in data.pairs if pair.told_apart]
        every = len(judged) == len(data.pairs) and len(judged) > 1
        return [f"Each of the {len(judged)} pairs can be told apart."] if every else unsure
    more = len(missed) - NAMED_PAIRS
    if more > 0:
        return [f"{_named(missed)} are not told apart.", *unsure]
    return [*(f"{_pair_words(pair)} are not told apart." for pair in missed), *unsure]


def _named(pairs: Sequence[Pair]) -> str:
    """The first few pairs by name, and how many more there are."""
    named = ", ".join(_pair_words(pair) for pair in pairs[:NAMED_PAIRS])
    more = len(pairs) - NAMED_PAIRS
    return f"{named} and {more} more pair{'s' if more > 1 else ''}" if more > 0 else named


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
