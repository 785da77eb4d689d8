"""What the audits found, as sections of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from subgenre.core.text import counted, p_value, percent, percent_interval
from subgenre.evaluation.audits.base import Lines, Section, Suggestion, Suggestions, Table
from subgenre.evaluation.audits.confounders import PHRASES, Confounders
from subgenre.evaluation.audits.duplicates import Duplicates
from subgenre.evaluation.audits.growth import LearningCurve
from subgenre.evaluation.audits.hubness import Hubness, Occurrence
from subgenre.evaluation.audits.leakage import Gap, Leakage
from subgenre.evaluation.audits.learnability import Pair
from subgenre.evaluation.audits.mislabels import Finding
from subgenre.evaluation.audits.open_set import Interval, OpenSet
from subgenre.evaluation.baselines import MODELS
from subgenre.library.track import Track
from subgenre.metrics import Score

VIEWS = {"within": "subgenres of one genre", "across": "genres"}
NOTABLE_GAP = 0.05
LISTED_COPIES = 10
NAMED_PAIRS = 4
ABSENT = "–"  # noqa: RUF001  an en dash is what an empty cell shows


def views(scores: Mapping[str, Mapping[str, Mapping[str, Score]]]) -> Section:
    """Scores by view and model: within each genre, and between the genres."""
    rows = [
        (
            VIEWS[view],
            MODELS[model].title,
            _share(by_metric.get("centroid_accuracy")),
            _share(by_metric.get("knn_accuracy")),
            _decimal(by_metric.get("map_at_r")),
        )
        for view, models in scores.items()
        for model, by_metric in models.items()
    ]
    return Section(
        "views",
        "Within and between genres",
        "Can the model separate the subgenres of one genre, and can it separate the genres? There "
        "are fewer choices than in the other sections, so chance is higher.",
        "",
        (
            Table(
                ("Separates", "Model", "Centroid accuracy", "k-NN accuracy", "MAP@R"),
                tuple(rows),
                "Within and between genres",
            ),
        ),
    )


def hubs(found: Hubness, tracks: Sequence[Track]) -> Section:
    """How often tracks are recommended, by cosine and by mutual proximity."""
    lines: tuple[tuple[str, Callable[[Occurrence], str]], ...] = (
        ("Tracks in no list", lambda o: percent(o.never_share)),
        ("Skewness of the number of lists a track is in (0: even)", lambda o: f"{o.skewness:.2f}"),
        ("Lists that hold the most frequent track", lambda o: str(o.most)),
        ("Tracks in over five times their share of lists", lambda o: percent(o.hub_share)),
        ("Neighbours of the same subgenre", lambda o: percent(o.same_share)),
    )
    names = [tracks[i].title or tracks[i].path.stem for i in found.cosine.hubs[:3]]
    return Section(
        "hubness",
        "Hubs",
        f"Are some tracks recommended everywhere and others nowhere? Each of {found.n_tracks} "
        f"tracks gets a list of its {found.k} most similar tracks, by cosine and by mutual "
        "proximity, which corrects for such hubs.",
        f"Most frequent in the lists by cosine: {', '.join(names)}." if names else "",
        (
            Table(
                ("", "Cosine", "Mutual proximity"),
                tuple((what, read(found.cosine), read(found.mutual)) for what, read in lines),
                "Hubs",
            ),
        ),
    )


def suggestions(findings: Sequence[Finding], tracks: Sequence[Track]) -> Section:
    """Tracks to look at, in rows that can be played."""
    names = {track.id: track.title or track.path.stem for track in tracks}
    rows = tuple(
        Suggestion(
            f.track,
            names.get(f.track, f.path),
            f.why,
            (
                f.kind,
                f.subgenre,
                "" if f.kind == "duplicate" else f.suggestion,
                percent(f.confidence),
            ),
        )
        for f in findings
    )
    return Section(
        "doctor",
        "Tracks to check",
        "Which tracks may be in the wrong playlist, copies, outliers or broken recordings? Nothing "
        "was changed.",
        "" if rows else "No track stands out.",
        (Suggestions(("Problem", "Playlist", "Fits", "Confidence"), rows, "Tracks to check"),)
        if rows
        else (),
    )


def pairs(judged: Sequence[Pair]) -> Section:
    """Which pairs of subgenres can be separated, the hardest first."""
    hardest = sorted(judged, key=lambda p: 2.0 if p.trained is None else p.trained.value)
    rows = tuple(
        (
            f"{p.a} and {p.b}",
            _share(p.trained),
            ABSENT if p.q_value is None else p_value(p.q_value),
            p.verdict,
        )
        for p in hardest
    )
    return Section(
        "pairs",
        "Pairs of subgenres",
        "Can the two subgenres of a pair be told apart? Accuracy is the trained model's on its "
        "held-out tracks. p tests the backbone before training: how often a light probe does as "
        "well with shuffled labels, corrected for the number of pairs (Benjamini and Hochberg). "
        "Told apart: p is at most 0.05 and the accuracy's interval lies above chance. Unsure: only "
        "one of the two holds.",
        "",
        (
            Table(
                ("Pair", "Accuracy of the model", "p before training", "Verdict"),
                rows,
                "Pairs of subgenres",
            ),
        ),
        _pairs_headline(judged),
    )


def _pairs_headline(judged: Sequence[Pair]) -> str:
    missed = [f"{p.a} and {p.b}" for p in judged if p.verdict == "not told apart"]
    unsure = [f"{p.a} and {p.b}" for p in judged if p.verdict == "unsure"]
    if len(judged) > 1 and all(p.verdict == "told apart" for p in judged):
        return f"Each of the {len(judged)} pairs of subgenres can be told apart."
    parts = [f"Not told apart: {_first(missed)}."] if missed else []
    parts += [f"Unsure whether they can be told apart: {_first(unsure)}."] if unsure else []
    return " ".join(parts)


def _first(pairs: Sequence[str]) -> str:
    more = len(pairs) - NAMED_PAIRS
    return "; ".join(pairs[:NAMED_PAIRS]) + (f"; {counted(more, 'more pair')}" if more > 0 else "")


def curve(found: LearningCurve) -> Section:
    """Accuracy over the number of training tracks."""
    accuracy = [point.accuracy for point in found.points]
    lines = Lines(
        "Centroid accuracy",
        "training tracks a subgenre",
        [point.n_tracks for point in found.points],
        [score.value for score in accuracy],
        [(score.low, score.high) for score in accuracy],
        accuracy[-1].chance if accuracy else None,
        top=1.0,
    )
    return Section(
        "curve",
        "Learning curve",
        "Would more tracks help? A light probe on the frozen backbone trains on fewer tracks. "
        "The model itself is not trained again.",
        found.text,
        (lines,) if accuracy else (),
    )


def confounders(found: Confounders) -> Section:
    """Properties that alone could give a playlist away."""
    rows = tuple(
        (
            PHRASES.get(c.column, (c.column,))[0],
            _share(c.accuracy),
            percent(c.known_share),
            p_value(c.q_value),
            "yes" if c.named else "",
        )
        for c in (found.together, *found.columns)
    )
    named = [c.text for c in found.columns if c.named]
    remarkable = [one.text for one in found.standouts] + named
    return Section(
        "confounders",
        "Confounders",
        "How many held-out tracks does one property assign to the right subgenre? "
        "The model may have learnt a property that is clearly above chance instead of the music.",
        " ".join(note for note in found.notes if note not in named),  # the table holds these
        (
            Table(
                ("Property", "Held-out accuracy", "Known for", "p, corrected", "Above chance"),
                rows,
                "Confounders",
            ),
        ),
        remarkable[0] if remarkable else "",
    )


def leakage(found: Leakage, copies: Duplicates) -> Section:
    """The same scores under loose and strict splits, and recordings on both sides."""
    rows = tuple(
        (f"{one.loose} against {one.strict}", name, _share(loose), _share(strict), _points(gap))
        for one in found.comparisons
        for name, loose, strict, gap in (
            ("nearest centroid", one.centroid_loose, one.centroid_strict, one.centroid_gap),
            ("k-NN", one.knn_loose, one.knn_strict, one.knn_gap),
        )
    )
    n = len(copies.pairs)
    found_copies = f"{counted(n, 'pair')} of copies found" if n else "No copies found"
    notes = [f"{found_copies}, {copies.text}.", *found.notes[:LISTED_COPIES]]
    if len(found.notes) > LISTED_COPIES:
        notes.append(f"And {len(found.notes) - LISTED_COPIES} more of this kind.")
    return Section(
        "leakage",
        "Leakage",
        "How much better does a model look if related tracks stand on both sides of a split? The "
        "same vectors of the frozen backbone are scored under a loose and a strict split.",
        " ".join(notes),
        (Table(("Split", "Score", "Loose", "Strict", "Gap"), rows, "Leakage"),),
        _leakage_headline(found),
    )


def _leakage_headline(found: Leakage) -> str:
    n = len(found.straddling)
    if n:
        stand = "stands" if n == 1 else "stand"
        return (
            f"{counted(n, 'recording')} {stand} on both sides of a split: the figures are too high."
        )
    for one in found.comparisons:
        gap = one.centroid_gap
        if one.kind in ("artist", "album") and gap.low > 0 and gap.value > NOTABLE_GAP:
            points = counted(round(100 * gap.value), "point")
            return f"With each {one.kind} on one side of the split, the accuracy is {points} lower."
    return ""


def open_set(found: Mapping[str, OpenSet]) -> Section:
    """How well tracks of an unknown subgenre are rejected, a row a score."""
    rows = tuple(
        (
            name,
            _decimal(one.auroc),
            _decimal(one.fpr95),
            percent(one.known_error),
            percent(one.caught),
        )
        for name, one in found.items()
    )
    best = max(found.values(), key=lambda one: one.auroc.value)
    worst = min(best.rows, key=lambda row: row.auroc.value)
    return Section(
        "open_set",
        "Unknown subgenres",
        "Are tracks of a subgenre that the model does not know rejected as 'none of my playlists'? "
        "Each subgenre is left out in turn. AUROC: how often a known track fits better than an "
        "unknown one; chance is 0.5. FPR at 95 % TPR: share of unknown tracks that are accepted if "
        "95 % of the known ones are.",
        f"{best.text} Hardest to reject: {worst.subgenre} (AUROC {worst.auroc.value:.2f}).",
        (
            Table(
                ("Score", "AUROC", "FPR at 95 % TPR", "Known rejected", "Unknown rejected"),
                rows,
                "Unknown subgenres",
            ),
        ),
    )


def _share(score: Score | None) -> str:
    return ABSENT if score is None else percent_interval(score.value, score.low, score.high)


def _decimal(score: Score | Interval | None) -> str:
    if score is None:
        return ABSENT
    return f"{score.value:.3f} ({score.low:.2f} to {score.high:.2f})"


def _points(gap: Gap) -> str:
    return f"{100 * gap.value:+.0f} points ({100 * gap.low:+.0f} to {100 * gap.high:+.0f})"
