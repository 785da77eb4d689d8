"""What the API takes and gives, as pydantic models: FastAPI checks and documents by them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from subgenre.search.ranking import Limits
from subgenre.search.track_rows import Filter

MAX_TRACKS = 1000  # in one list: the smooth order compares all pairs
Ids = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=MAX_TRACKS)]
Name = Annotated[str, Field(max_length=300)]
Names = Annotated[list[Name], Field(max_length=100)]


class Strict(BaseModel):
    """A body or query in which an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class Wanted(Strict):
    """How long a list is, and which tracks it may hold."""

    k: int = Field(10, ge=1, le=MAX_TRACKS, description="tracks")
    minutes: float | None = Field(None, gt=0, le=10_000, description="of music, instead of k")
    per_artist: int = Field(0, ge=0, description="tracks of one artist at most; 0: no limit")
    versions: bool = Field(False, description="keep several versions of one recording")
    genre: Names = []
    subgenre: Names = []
    artist: Names = []
    bpm_min: float | None = None
    bpm_max: float | None = None
    duration_min_s: float | None = None
    duration_max_s: float | None = None

    def limits(self) -> Limits:
        """Say how long the list is."""
        k = None if self.minutes is not None else self.k
        return Limits(k, self.minutes, self.per_artist, self.versions)

    def filter(self) -> Filter:
        """Say which tracks may stand in it."""
        return Filter(
            genre=tuple(self.genre),
            subgenre=tuple(self.subgenre),
            artist=tuple(self.artist),
            bpm=_between(self.bpm_min, self.bpm_max),
            duration_s=_between(self.duration_min_s, self.duration_max_s),
        )


class SimilarQuery(Wanted):
    """Which similar tracks are asked for."""

    mutual: bool = Field(True, description="rank by mutual proximity, else by cosine")


class AxisQuery(Wanted):
    """A place between two subgenres, and which tracks near it are asked for."""

    name: str = Field(max_length=600, description="'Subgenre A:Subgenre B'")
    at: float = Field(ge=-1, le=2, description="the place: 0 and 1 are the middles of the two")


class PlaylistRequest(Wanted):
    """A playlist to be made; nothing is saved."""

    kind: Literal["agreement", "expand", "journey", "axis"]
    seeds: Ids = Field([], description="ids: of agreement; the two ends of a journey")
    subgenre_name: Name = Field("", description="the subgenre to expand")
    axis: Name = Field("", description="'Subgenre A:Subgenre B'")
    until_fit: float | None = Field(0.9, gt=0, le=1, description="least probability of expand")
    like: Ids = []
    unlike: Ids = []
    smooth: bool = Field(False, description="order by nearness, and by tempo where tags have it")


class OrderRequest(Strict):
    """Tracks to be put in a smooth order."""

    ids: Ids
    keep_first: bool = False


class SaveRequest(Strict):
    """A playlist to be saved."""

    name: str = Field(min_length=1, max_length=200)
    ids: Annotated[Ids, Field(min_length=1)]
    format: Literal["m3u8", "csv", "xml"] = "m3u8"
    replace: bool = Field(False, description="write over a playlist of this name")


class CorrectionRequest(Strict):
    """What is said of a track: its subgenre ('subgenre' or 'genre/subgenre'), or wrong."""

    subgenre: Name = ""
    wrong: bool = False


class TrackLine(BaseModel):
    """A track on one line; 0 and "" where a value is not known."""

    id: str
    title: str
    artist: str
    genre: str
    subgenre: str
    duration_s: float
    bpm: float


class HitLine(TrackLine):
    """A track that was found: its cosine, and the score that ranked it."""

    cosine: float
    score: float


class Tracks(BaseModel):
    """Tracks in order."""

    tracks: list[TrackLine]


class Hits(BaseModel):
    """Tracks that were found, best first or in the order of the path."""

    tracks: list[HitLine]


class Chance(BaseModel):
    """Probability of one subgenre."""

    genre: str
    subgenre: str
    probability: float


class PlacementModel(BaseModel):
    """Where a track belongs: calibrated probabilities, and whether it fits any subgenre."""

    none_of_these: bool
    fit: float = Field(description="p-value of belonging to any of the subgenres")
    chances: list[Chance]
    chunk_start_s: float | None = Field(description="the chunk that speaks most for the first")


class FindingModel(BaseModel):
    """What the doctor says of a track."""

    kind: str
    suggestion: str
    confidence: float
    why: str


class CorrectionModel(BaseModel):
    """What a person said of a track."""

    genre: str = ""
    subgenre: str = ""
    wrong: bool = False


class TrackDetail(TrackLine):
    """Everything of one track."""

    album: str
    year: int
    path: str
    x: float
    y: float
    there: bool = Field(description="its file is where the index says")
    windows_s: list[float] = Field(description="starts of the chunks that were used")
    chunk_s: float
    trained: bool = Field(description="it was trained on, so that its placement flatters")
    placement: PlacementModel | None
    doctor: list[FindingModel]
    correction: CorrectionModel | None


class LabelModel(BaseModel):
    """A subgenre, and how it is drawn."""

    genre: str
    subgenre: str
    count: int
    colour: str
    symbol: str
    outline: str = Field(description="SVG path in a box of 16 by 16")


class LibraryModel(BaseModel):
    """The library as a whole."""

    title: str
    note: str
    tracks: int
    revision: int
    labels: list[LabelModel]
    can_place: bool
    can_refit: bool
    max_upload_mb: int
    extensions: list[str]


class Points(BaseModel):
    """All tracks on the map, column by column; `label` is a position in the labels, or -1."""

    revision: int
    ids: list[str]
    titles: list[str]
    artists: list[str]
    x: list[float]
    y: list[float]
    label: list[int]


class AxisModel(BaseModel):
    """Where every track lies between two subgenres: 0 and 1 are their centroids."""

    start: str
    end: str
    revision: int
    positions: list[float] = Field(description="in the order of the points")


class PeaksModel(BaseModel):
    """Loudest sample of equal parts of a track, a byte each, base64."""

    count: int
    peaks: str


class Placed(BaseModel):
    """A file that was heard: where it lies, what it is, what it resembles."""

    name: str
    known_as: str = Field(description="id of the track with the same audio, or empty")
    duration_s: float
    x: float
    y: float
    windows_s: list[float]
    chunk_s: float
    placement: PlacementModel | None
    neighbours: list[HitLine]
    peaks: PeaksModel


class Saved(BaseModel):
    """A playlist on disk."""

    file: str
    tracks: int
    folder: str


class SavedList(BaseModel):
    """The playlists that were saved."""

    folder: str
    files: list[str]


class CorrectionsModel(BaseModel):
    """All corrections, by track id, and whether a refit would change something."""

    corrections: dict[str, CorrectionModel]
    pending: bool


class Refitted(BaseModel):
    """The map after a refit."""

    revision: int
    corrections: int


class Problem(BaseModel):
    """Why a request was refused, in one sentence."""

    detail: str


def _between(low: float | None, high: float | None) -> tuple[float, float] | None:
    if low is None and high is None:
        return None
    return (low or 0.0, float("inf") if high is None else high)
