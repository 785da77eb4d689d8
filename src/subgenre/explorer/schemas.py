"""The API's requests and responses as pydantic models, which FastAPI checks and documents."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from subgenre.search.requests import PlaylistRequest
from subgenre.search.track_rows import Filter

MAX_TRACKS = 1000  # in one list: the smooth order compares all pairs
Ids = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=MAX_TRACKS)]
Name = Annotated[str, Field(max_length=300)]
Names = Annotated[list[Name], Field(max_length=100)]


class Request(BaseModel):
    """A body or query in which an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class ListRequest(Request):
    """The length of a list, and which tracks it may hold."""

    k: int = Field(10, ge=1, le=MAX_TRACKS, description="tracks")
    minutes: float | None = Field(None, gt=0, le=10_000, description="of music, instead of k")
    per_artist: int = Field(0, ge=0, description="most tracks of one artist; 0: no limit")
    versions: bool = Field(False, description="keep several versions of one recording")
    genre: Names = []
    subgenre: Names = []
    artist: Names = []
    bpm_min: float | None = None
    bpm_max: float | None = None
    key: Names = Field([], description="as Am or 8A")
    in_key: Names = Field([], description="a key and its neighbours on the Camelot wheel")
    duration_min_s: float | None = None
    duration_max_s: float | None = None

    def options(self) -> dict[str, Any]:
        """Return them as fields of `requests.PlaylistRequest`."""
        return {
            "tracks": None if self.minutes is not None else self.k,
            "minutes": self.minutes,
            "per_artist": self.per_artist,
            "versions": self.versions,
            "filter": Filter(
                genre=tuple(self.genre),
                subgenre=tuple(self.subgenre),
                artist=tuple(self.artist),
                bpm=_between(self.bpm_min, self.bpm_max),
                key=tuple(self.key),
                in_key=tuple(self.in_key),
                duration_s=_between(self.duration_min_s, self.duration_max_s),
            ),
        }


class SimilarQuery(ListRequest):
    """A list of similar tracks."""

    mutual: bool = Field(True, description="rank by mutual proximity, else by cosine")


class AxisQuery(ListRequest):
    """A list of tracks near a point between two subgenres."""

    name: str = Field(max_length=600, description="'Subgenre A:Subgenre B'")
    at: float = Field(
        ge=-1, le=2, description="position of the point: 0 and 1 are the centroids of the two"
    )


class PlaylistBody(ListRequest):
    """A playlist to make; nothing is saved."""

    kind: Literal["agreement", "expand", "journey", "axis"]
    seeds: Ids = Field([], description="track ids; two for a journey")
    subgenre_name: Name = Field("", description="the subgenre to expand")
    axis: Name = Field("", description="'Subgenre A:Subgenre B'")
    until_fit: float | None = Field(
        None, ge=0, le=1, description="for expand: how well a track must fit, as a probability"
    )
    like: Ids = []
    unlike: Ids = []
    smooth: bool = Field(False, description="order by similarity, and by tempo where known")

    def to_request(self) -> PlaylistRequest:
        """Return the request that all lists share."""
        return PlaylistRequest(
            self.seeds,
            expand=self.subgenre_name if self.kind == "expand" else "",
            until_fit=self.until_fit,
            like=self.like,
            unlike=self.unlike,
            journey=self.kind == "journey",
            axis=self.axis if self.kind == "axis" else "",
            smooth=self.smooth,
            **self.options(),
        )


class OrderRequest(Request):
    """Tracks to put in a smooth order."""

    ids: Ids
    keep_first: bool = False


class SaveRequest(Request):
    """A playlist to save."""

    name: str = Field(min_length=1, max_length=200)
    ids: Annotated[Ids, Field(min_length=1)]
    format: Literal["m3u8", "csv", "xml"] = "m3u8"
    replace: bool = Field(False, description="overwrite a playlist of this name")


class CorrectionRequest(Request):
    """The right subgenre of a track ('subgenre' or 'genre/subgenre'), or `wrong`."""

    subgenre: Name = ""
    wrong: bool = False


class TrackLine(BaseModel):
    """A track in a list; 0, "" or null for an unknown value."""

    id: str
    title: str
    artist: str
    genre: str
    subgenre: str
    duration_s: float
    bpm: float | None = Field(description="by the tags")
    tempo: float | None = Field(description="measured, in the octave of the tags; else the tags'")
    tempo_bpm: float | None = Field(description="measured")
    key: str | None
    camelot: str | None


class HitLine(TrackLine):
    """A track found by a search: its cosine, and the score that ranks it."""

    cosine: float | None = Field(description="none where there is no track before")
    score: float
    before: int | None = Field(description="its place without `like` and `unlike`")


class Tracks(BaseModel):
    """Tracks in order."""

    tracks: list[TrackLine]


class Hits(BaseModel):
    """Tracks found by a search, best first or in playing order, and where the list falls short."""

    tracks: list[HitLine]
    notes: list[str] = []


class Chance(BaseModel):
    """How well a track fits one subgenre: the calibrated probability that it belongs."""

    genre: str
    subgenre: str
    fits: float


class Placement(BaseModel):
    """The subgenre of a track: how well it fits the best, and whether it is of none."""

    none_of_these: bool
    p_value: float = Field(description="of belonging to any of the subgenres")
    chances: list[Chance]
    chunk_start_s: float | None = Field(description="start of the chunk most typical of the first")


class Finding(BaseModel):
    """A finding of the doctor."""

    kind: str
    suggestion: str
    confidence: float = Field(description="that there is such a problem")
    how_sure: str = Field(description="the confidence for a person; empty where `why` has a figure")
    why: str
    fit: float | None = Field(description="probability of the suggestion")
    nearest: list[TrackLine]


class Correction(BaseModel):
    """The correction of a track."""

    genre: str = ""
    subgenre: str = ""
    wrong: bool = False


class TrackDetail(TrackLine):
    """All that is known of one track."""

    album: str
    year: int
    path: str
    x: float
    y: float
    there: bool = Field(description="whether its file exists")
    windows_s: list[float] = Field(description="starts of its chunks")
    chunk_s: float
    trained: bool = Field(description="a training track: its placement looks better than it is")
    placement: Placement | None
    doctor: list[Finding]
    correction: Correction | None


class Label(BaseModel):
    """A subgenre and how it is drawn."""

    genre: str
    subgenre: str
    count: int
    colour: str
    symbol: str
    outline: str = Field(description="SVG path in a box of 16 by 16")


class Library(BaseModel):
    """The library as a whole."""

    title: str
    note: str
    tracks: int
    revision: int
    labels: list[Label]
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


class Axis(BaseModel):
    """Positions of all tracks between two subgenres: 0 and 1 are their centroids."""

    start: str
    end: str
    revision: int
    positions: list[float] = Field(description="in the order of the points")


class Peaks(BaseModel):
    """The loudest sample of equal parts of a track, one byte each, base64."""

    count: int
    peaks: str


class Placed(BaseModel):
    """A file placed on the map: its coordinates, subgenre and neighbours."""

    name: str
    known_as: str = Field(description='id of the track with the same audio, or ""')
    duration_s: float
    x: float
    y: float
    windows_s: list[float]
    chunk_s: float
    placement: Placement | None
    neighbours: list[HitLine]
    peaks: Peaks


class Saved(BaseModel):
    """A playlist on disk."""

    file: str
    tracks: int
    folder: str


class SavedList(BaseModel):
    """The saved playlists."""

    folder: str
    files: list[str]


class Corrections(BaseModel):
    """All corrections, by track id, and whether a refit would change the map."""

    corrections: dict[str, Correction]
    pending: bool


class Refitting(BaseModel):
    """How far the running refit is; zeros before its first stage."""

    stage: str
    done: int
    total: int


class Refitted(BaseModel):
    """The map after a refit."""

    revision: int
    corrections: int


class Problem(BaseModel):
    """Why a request was refused, in one sentence."""

    detail: str


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the refusals of a route for FastAPI."""
    return {status: {"model": Problem} for status in statuses}


def _between(low: float | None, high: float | None) -> tuple[float, float] | None:
    if low is None and high is None:
        return None
    return (low or 0.0, float("inf") if high is None else high)
