"""The summary of a report in sentences that follow from its figures."""

from __future__ import annotations

from subgenre.core.text import counted, percent, percent_interval
from subgenre.metrics import Score
from subgenre.report.data import ReportData
from subgenre.report.wording import difference_text

METRIC = "centroid_accuracy"
MODEL = "trained"
FEW_TRACKS = 20  # held out: with fewer, an interval spans a third of the scale or more
IN_PART, WELL = 0.2, 0.5  # of the way from chance to all right
BASELINES = {  # how a sentence about each begins
    "frozen": "The frozen backbone alone reaches",
    "probe": "A linear probe on the frozen backbone reaches",
    "tempo_loudness": "Tempo and loudness alone reach",
    "mean_log_mel": "The mean spectrum alone reaches",
}
SIMPLE = ("tempo_loudness", "mean_log_mel")  # they ignore most of the music
MAY_BE_CHANCE = "; with this many tracks the difference may be chance"
COARSE_POINTS = 3.0  # a note is due if one held-out track moves the accuracy by so many points
SMALL_SUBGENRE = 10  # or if a subgenre has so few held-out tracks


def sentences(data: ReportData) -> list[str]:
    """Summarise the figures; the first sentence is the verdict."""
    score = data.score(MODEL, METRIC)
    if score is None:
        return ["No held-out track could be scored, so the model's quality is unknown."]
    lines = [_verdict(data, score), *_beside_baselines(data)]
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


def _beside_baselines(data: ReportData) -> list[str]:
    """Compare the model with each baseline; a simple one that it clearly beats is left out."""
    lines = []
    for name, start in BASELINES.items():
        base, difference = data.score(name, METRIC), data.difference(MODEL, name, METRIC)
        if base is None or difference is None or (name in SIMPLE and difference.low > 0):
            continue
        gap = f"{start} {_text(base)}, {difference_text(difference)} this model"
        doubt = difference.difference != 0 and not difference.clear
        lines.append(f"{gap}{MAY_BE_CHANCE if doubt else ''}.")
    return lines


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
