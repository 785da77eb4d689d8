"""Audio, or the held-out tracks of a run -> one table of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subgenre.commands.model_folder import ModelFolder
from subgenre.core import files, hardware, text, workspace
from subgenre.core.progress import Console, Silent
from subgenre.core.shards import Shard
from subgenre.dataset import track_vectors
from subgenre.errors import ConfigError, LibraryError
from subgenre.library import sources
from subgenre.library.sources import Skipped
from subgenre.library.track import Track
from subgenre.library.uris import Maps
from subgenre.models import embedding, encoder
from subgenre.models.cache import CACHE


@dataclass(frozen=True)
class Embedded:
    """What `embed` wrote."""

    path: Path
    n_tracks: int
    skipped: tuple[Skipped, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return {
            "path": str(self.path),
            "n_tracks": self.n_tracks,
            "skipped": [one.to_dict() for one in self.skipped],
        }


def embed(
    audio: Sequence[Path] = (),
    run: Path | None = None,
    out: Path = Path("embeddings.parquet"),
    *,
    features: Path | None = None,
    maps: Maps = (),
    engine: str | None = None,
    shard: Shard | None = None,
    console: Console | None = None,
) -> Embedded:
    """Write vectors of audio files or folders, or of the run's held-out tracks.

    `maps`: as of `audio_files`. `engine`: as of `ModelFolder.open`. `shard`: embed only its share
    of the files; `merge` writes `out`.

    Raises:
        RunError, FeatureError: as for `evaluate`.
        LibraryError: no audio where it was named, or none of it can be read.
        ConfigError: a shard of the held-out tracks, or of another job than those beside `out`.
    """
    console = console or Silent()
    if audio:
        return _embed_audio(audio, run, out, maps, engine, shard, console)
    if shard:
        raise ConfigError("--shard divides audio files; name them, or leave it out")
    opened = ModelFolder.open(run, console, features=features, vectors=False, engine=engine)
    device = hardware.pick_device(opened.settings.run.device)
    rows = opened.features.rows(opened.split.test)
    with console.progress("embedding") as bar:
        if opened.settings.model.tune == "head":  # the frozen backbone's output may be cached
            pooled = embedding.pooled_vectors(
                opened.encoder, opened.features, rows, cache=opened.features.path / CACHE,
                device=device, on_progress=bar,
            )  # fmt: skip
            chunks = embedding.project_vectors(opened.encoder, pooled, device=device)
        else:
            chunks = embedding.chunk_vectors(
                opened.encoder.to(device), opened.features, rows, device=device, on_progress=bar
            )
    numbers, vectors = track_vectors.track_vectors(chunks, opened.features.track_of[rows])
    tracks = [opened.features.tracks[number] for number in numbers]
    track_vectors.write_embeddings(
        out,
        tracks,
        vectors,
        split=["test"] * len(tracks),
        fingerprint=encoder.fingerprint(opened.encoder),
    )
    console.info(f"{out}: {text.counted(len(tracks), 'held-out track')}, {_size(opened)} each")
    return Embedded(out, len(tracks), ())


def _embed_audio(
    audio: Sequence[Path],
    run: Path | None,
    out: Path,
    maps: Maps,
    engine: str | None,
    shard: Shard | None,
    console: Console,
) -> Embedded:
    """Embed files and folders from outside; labels are empty."""
    opened = ModelFolder.open(run, console, vectors=False, engine=engine)
    listed = sources.audio_files(audio, maps)
    paths: Sequence[Path] = listed.paths
    place, fingerprint = shards_of(out), encoder.fingerprint(opened.encoder)
    if shard:
        names = "\n".join(str(path) for path in paths).encode("utf-8", "surrogateescape")
        job = {
            "model": fingerprint,
            "engine": opened.encoder.backbone.engine,
            "files": len(paths),
            "names": files.checksum(names),
        }
        out = shard.join(place, job) / workspace.EMBEDDINGS
        paths = shard.share(paths)
    found = opened.embed(paths, console=console)
    skipped = sources.warn_of_skipped(console, (*listed.skipped, *found.skipped))
    if not (found.paths or shard):
        named = text.counted(len(skipped), "file")
        raise LibraryError(f"none of {named} could be embedded, so {out} is not written")
    tracks = [Track(i, path) for i, path in zip(found.ids, found.paths, strict=True)]
    track_vectors.write_embeddings(out, tracks, found.vectors, fingerprint=fingerprint)
    if shard:
        left_out = [[files.path_to_text(one.path, Path()), one.reason] for one in skipped]
        shard.finish(place, skipped=left_out)
    console.info(f"{out}: {text.counted(len(tracks), 'file')}, {_size(opened)} each")
    return Embedded(out, len(tracks), skipped)


def shards_of(out: Path) -> Path:
    """Return the folder where the shards of a table of vectors are."""
    return out.parent / f"{out.name}.shards"


def _size(model: ModelFolder) -> str:
    """Say how many values a vector has, and which of them are the joined principal axes."""
    learnt = model.settings.model.embedding_size
    axes = f" ({learnt} learnt, {model.dim - learnt} principal axes)" if model.dim > learnt else ""
    return f"{model.dim} values{axes}"
