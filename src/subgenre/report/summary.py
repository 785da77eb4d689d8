"""The summary of a report in sentences that follow from its figures."""

from __future__ import annotations

from subgenre.core.text import counted, percent, percent_interval
from subgenre.metrics import Score
from subgenre.report.data import ReportData

METRIC = "centroid_accuracy"
MODEL, BASELINE = "trained", "frozen"
FEW_TRACKS = 20  # held out: with fewer, an interval spans a third of the scale or more
IN_PART, WELL = 0.2, 0.5  # of the way from chance to all right
# baselines that ignore most of the music, and how a sentence about them begins
SIMPLE = {
    "tempo_loudness": "Tempo and loudness alone reach",
    "mean_log_mel": "The mean spectrum alone reaches",
}
COARSE_POINTS = 3.0  # a note is due if one held-out track moves the accuracy by so many points
SMALL_SUBGENRE = 10  # or if a subgenre has so few held-out tracks


def sentences(data: ReportData) -> list[str]:
    """Summarise the figures; the first sentence is the verdict."""
    score = data.score(MODEL, METRIC)
    if score is None:
        return ["No held-out track could be scored, so the model's quality is unknown."]
    lines = [_verdict(data, score), *_training_gain(data, score), *_simple_baselines(data, score)]
    lines += [section.headline for section in data.sections if section.headline]
    return lines + _coarseness(data)


def learnt_nothing(data: ReportData) -> bool:
    """Whether the model is no better than chance, with enough tracks to conclude that."""
    score = data.score(MODEL, METRIC)
    return score is not None and score.low <= score.chance and not inconclusive(data)


def inconclusive(data: ReportData) -> bool:
    """Whether too few tracks were held out to tell a good model from chance."""
    score = data.score(MODEL, METRIC)
    if score is None or not score.low <= score.chance < score.high:
        return False
    return _few(data) or _lift(score.high, score.chance) >= WELL


def _few(data: ReportData) -> bool:
    return 0 < data.n_test < FEW_TRACKS


def _lift(share: float, chance: float) -> float:
    """How far a share is on the way from chance, 0, to all tracks right, 1."""
    return (share - chance) / max(1e-9, 1 - chance)


def _text(score: Score) -> str:
    return percent_interval(score.value, score.low, score.high)


def _verdict(data: ReportData, score: Score) -> str:
    fact = (
        f"{_text(score)} of held-out tracks are assigned to the right subgenre; chance is "
        f"{percent(score.chance)}"
    )
    if inconclusive(data):
        return f"Too few tracks were held out to tell the model from chance: {fact}."
    if learnt_nothing(data):
        return f"The model is no better than chance: {fact}."
    if _few(data):
        return (
            f"The model is better than chance, but {data.n_test} held-out tracks are too few to "
            f"say by how much: {fact}."
        )
    lift = _lift(score.value, score.chance)
    if lift >= WELL:
        return f"The model separates your playlists: {fact}."
    if lift >= IN_PART:
        return f"The model separates your playlists in part: {fact}."
    return f"The model hardly separates your playlists: {fact}."


def _training_gain(data: ReportData, score: Score) -> list[str]:
    base = data.score(BASELINE, METRIC)
    if base is None:
        return []
    gain = 100 * (score.value - base.value)
    start = f"The frozen backbone alone reaches {_text(base)}"
    if abs(gain) < 0.5:
        return [f"{start}; training did not change this figure."]
    verb = "added" if gain > 0 else "lost"
    overlap = _overlap(score, base)
    doubt = ", which is uncertain because the intervals overlap" if overlap else ""
    return [f"{start}; training {verb} {counted(round(abs(gain)), 'point')}{doubt}."]


def _simple_baselines(data: ReportData, score: Score) -> list[str]:
    """Name the simple baselines that the model is not clearly better than."""
    lines = []
    base = data.score(BASELINE, METRIC)
    for name, start in SIMPLE.items():
        simple = data.score(name, METRIC)
        if simple is None or not (_overlap(score, simple) or simple.value >= score.value):
            continue
        line = f"{start} {_text(simple)}{_as_much_as(simple, score, 'this model')}"
        if simple.value < score.value:
            if base is not None:
                line += _as_much_as(simple, base, "the frozen backbone")
            line += "; the intervals overlap, so the model may be no better"
        lines.append(f"{line}.")
    return lines


def _as_much_as(simple: Score, other: Score, name: str) -> str:
    gap = 100 * (simple.value - other.value)
    return "" if gap <= -0.5 else f", {'as much as' if gap < 0.5 else 'more than'} {name}"


def _overlap(a: Score, b: Score) -> bool:
    return a.low <= b.high and b.low <= a.high


def _coarseness(data: ReportData) -> list[str]:
    """Say how much one held-out track weighs, where that is much."""
    if not data.n_test:
        return []
    lines = []
    weight = 100 / data.n_test
    if weight >= COARSE_POINTS:
        lines.append(f"One of the {data.n_test} held-out tracks is worth {weight:.0f} points.")
    smallest = min((c["test"] for c in data.counts().values() if c["test"]), default=None)
    if smallest is not None and smallest <= SMALL_SUBGENRE:
        held_out = counted(smallest, "held-out track")
        lines.append(
            f"The smallest subgenre has {held_out}; one is worth {100 / smallest:.0f} points of "
            "its accuracy."
        )
    return lines
