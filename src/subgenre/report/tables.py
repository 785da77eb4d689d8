"""What the audits found, as the report's tables and sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from subgenre.core.text import p_value, percent
from subgenre.evaluation.audits.confounders import PHRASES, Confounder, Confounders
from subgenre.evaluation.audits.duplicates import Duplicates
from subgenre.evaluation.audits.growth import LearningCurve
from subgenre.evaluation.audits.hubness import Hubness, Occurrence
from subgenre.evaluation.audits.leakage import Comparison, Leakage
from subgenre.evaluation.audits.learnability import FEW_ARTISTS, FEW_TRACKS
from subgenre.evaluation.audits.learnability import Pair as Judged
from subgenre.evaluation.audits.mislabels import Finding
from subgenre.evaluation.audits.open_set import Interval, OpenSet
from subgenre.library.scan import Track
from subgenre.metrics import Score
from subgenre.report.data import CurveStep, Figure, Pair, Suggestion, Table
from subgenre.report.wording import ACCURACY

VIEW_METRICS = ("centroid_accuracy", "knn_accuracy", "map_at_r")
VIEW_HEADS = ("Centroid accuracy", "k-NN accuracy", "MAP@R")
VIEW_NAMES = {
    "within": "within a genre",
    "across": "the genres",
}
NOTABLE_GAP = 0.05
SHOWN_COPIES = 10


def views(found: Mapping[str, Mapping[str, Mapping[str, Score]]]) -> Table | None:
    """Scores by view and rung: within each genre, and of the genres."""
    rows = [
        (VIEW_NAMES[view], name, *(scores.get(metric) for metric in VIEW_METRICS))
        for view, rungs in found.items()
        for name, scores in rungs.items()
    ]
    if not rows:
        return None
    words = (
        "Within: each genre on its own, its subgenres being the only choices. Genres: is the genre "
        "right, whatever the subgenre? Siblings are the hard part.",
    )
    return Table(("Told apart", "By", *VIEW_HEADS), tuple(rows), words)


def hubs(found: Hubness, tracks: Sequence[Track]) -> Table:
    """How often tracks are recommended, by cosine and by mutual proximity."""
    lines: tuple[tuple[str, Callable[[Occurrence], str]], ...] = (
        ("tracks in nobody's list", lambda o: percent(o.never_share)),
        ("skewness of k-occurrence (0: all alike)", lambda o: f"{o.skewness:.2f}"),
        ("most lists with one track", lambda o: str(o.most)),
        ("tracks in more than five times their share of lists", lambda o: percent(o.hub_share)),
        ("neighbours of the same subgenre", lambda o: percent(o.same_share)),
    )
    rows = tuple((what, read(found.cosine), read(found.mutual)) for what, read in lines)
    words = [f"Lists of the {found.k} most similar among {found.n_tracks} tracks: {found.text}."]
    words += _hub_words(found.cosine, tracks)
    return Table(("", "cosine", "mutual proximity"), rows, tuple(words))


def _hub_words(found: Occurrence, tracks: Sequence[Track]) -> list[str]:
    names = [tracks[i].title or tracks[i].path.stem for i in found.hubs[:3]]
    return [f"Recommended most, by cosine: {', '.join(names)}."] if names else []


def suggestions(findings: Sequence[Finding], tracks: Sequence[Track]) -> tuple[Suggestion, ...]:
    """Return the doctor's findings as lines of the report."""
    names = {track.id: track.title or track.path.stem for track in tracks}
    return tuple(
        Suggestion(
            id=f.track,
            kind=f.kind,
            title=names.get(f.track, f.path),
            subgenre=f.subgenre,
            fits="" if f.kind == "duplicate" else f.suggestion,
            sure=f.confidence,
            note=f.why,
        )
        for f in findings
    )


def pairs(judged: Sequence[Judged]) -> tuple[Pair, ...]:
    """Return the judged pairs as the report shows them."""
    return tuple(
        Pair(
            p.a,
            p.b,
            p.trained,
            p.q_value,
            p.verdict if p.verdict in (FEW_TRACKS, FEW_ARTISTS, "unsure") else "",
        )
        for p in judged
    )


def curve(found: LearningCurve) -> tuple[tuple[CurveStep, ...], str]:
    """Return the learning curve's steps and its words."""
    steps = tuple(CurveStep(point.n_tracks, point.accuracy) for point in found.points)
    words = (
        f"A light probe on the frozen backbone, with fewer tracks in training: {found.text}. "
        "Training of the model itself is not repeated for this."
    )
    return steps, words


def confounders(found: Confounders) -> Table:
    """Columns that could give a playlist away, the most telling first."""
    everything = (found.together, *found.columns)
    rows = tuple(
        (
            _column(c),
            c.accuracy,
            percent(c.known_share),
            p_value(c.q_value),
            "yes" if c.named else "",
        )
        for c in everything
    )
    lead = (
        "How many held-out tracks does a number or a tag alone place right, without listening? "
        "What beats chance clearly is named: the model may have learnt that instead of the music."
    )
    headline = ""
    if found.notes and (found.standouts or any(c.named for c in found.columns)):
        headline = _ended(found.standouts[0].text) if found.standouts else _sentence(found.notes[0])
    heads = ("", ACCURACY, "known of", "p, corrected", "named")
    named = {one.text for one in found.standouts}  # they begin with a subgenre's name
    words = (lead, *(_ended(n) if n in named else _sentence(n) for n in found.notes))
    return Table(heads, rows, words, headline)


def _column(found: Confounder) -> str:
    return PHRASES.get(found.column, (found.column,))[0]


def leakage(found: Leakage, copies: Duplicates) -> Table:
    """The same scores under loose and strict splits, and recordings on both sides."""
    rows = tuple(row for one in found.comparisons for row in _gap_rows(one))
    n = len(copies.pairs)
    told = f"{n} pair{'' if n == 1 else 's'} of copies" if n else "No copies"
    words = [
        "The same vectors of the frozen backbone, chunk by chunk, scored twice: the gap is what a "
        "loose split flatters by.",
        f"{told} found, {copies.text}.",
        *(_ended(note) for note in found.notes[:SHOWN_COPIES]),
    ]
    if len(found.notes) > SHOWN_COPIES:
        words.append(f"And {len(found.notes) - SHOWN_COPIES} more of this kind.")
    headline = ""
    if found.straddling:
        n = len(found.straddling)
        what = "recording stands" if n == 1 else "recordings stand"
        headline = f"{n} {what} on both sides of a split under two names: the figures flatter."
    else:
        artist = [c for c in found.comparisons if c.kind in ("artist", "album")]
        wide = [c for c in artist if c.centroid_gap.low > 0 and c.centroid_gap.value > NOTABLE_GAP]
        if wide:
            points = 100 * wide[0].centroid_gap.value
            headline = f"Splits that part no {wide[0].kind} score {points:.0f} points lower."
    heads = ("Split", "Score", "Loose", "Strict", "Gap")
    return Table(heads, rows, tuple(words), headline)


def _gap_rows(one: Comparison) -> list[tuple[object, ...]]:
    what = f"{one.loose} against {one.strict}"
    rows = (
        ("nearest centroid", one.centroid_loose, one.centroid_strict, one.centroid_gap),
        ("k-NN", one.knn_loose, one.knn_strict, one.knn_gap),
    )
    return [
        (what, name, _share(loose), _share(strict), _span(gap.value, gap.low, gap.high))
        for name, loose, strict, gap in rows
    ]


def _share(score: Score) -> str:
    return f"{percent(score.value)} ({100 * score.low:.0f} to {100 * score.high:.0f})"


def _span(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.0f} points ({100 * low:+.0f} to {100 * high:+.0f})"


def open_set(found: Mapping[str, OpenSet]) -> Table:
    """Rejection of unknown subgenres, a row a way to score; the best of them told in words."""
    rows = tuple(
        (
            name,
            _figure(one.auroc, one.chance),
            _figure(one.fpr95, None),
            percent(one.known_error),
            percent(one.caught),
        )
        for name, one in found.items()
    )
    best = max(found.values(), key=lambda one: one.auroc.value)
    worst = min(best.rows, key=lambda row: row.auroc.value)
    words = (
        "Each subgenre is left out in turn: are its tracks turned away as 'none of my playlists'? "
        "AUROC: how often a known track fits better than an unknown one. FPR at 95 % TPR: share of "
        "unknown tracks let in when 95 % of the known ones are.",
        _sentence(best.text),
        f"Hardest to turn away: {worst.subgenre} (AUROC {worst.auroc.value:.2f}).",
    )
    heads = ("By", "AUROC", "FPR at 95 % TPR", "known turned away", "unknown turned away")
    return Table(heads, rows, words)


def _figure(found: Interval, chance: float | None) -> Figure:
    return Figure(found.value, found.low, found.high, chance)


def _sentence(text: str) -> str:
    return _ended(f"{text[:1].upper()}{text[1:]}")


def _ended(text: str) -> str:
    """Close a sentence that begins with a name, which keeps its own spelling."""
    return text if text.endswith(".") else f"{text}."
