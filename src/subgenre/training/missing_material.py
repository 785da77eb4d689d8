"""What a recipe asks for and a library can't give: told before the training, not refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from subgenre import config
from subgenre.config import BatchConfig, TrainConfig
from subgenre.dataset.folder import FeatureFolder


def lacking(folder: FeatureFolder, settings: TrainConfig) -> list[str]:
    """Return sentences on what the library lacks: trash, siblings, a second genre, tracks."""
    checks = (_trash, _siblings, _batches)
    return [sentence for check in checks for sentence in check(folder, settings)]


def _trash(folder: FeatureFolder, settings: TrainConfig) -> Iterator[str]:
    """Tell that a quadruplet's fourth is not of the trash pool, where there is none."""
    if settings.loss.name != "quadruplet" or folder.trash:
        return
    none = "no trash pool in these features"
    if len(set(folder.genres)) < 2:
        yield f"{none}, and one genre alone: the quadruplet's fourth is missing"
        return
    if _of_one_genre(folder, settings):
        yield f"{none}, and batch.same_genre is 1: the quadruplet's fourth is missing"
        return
    where = ", in batches of several genres" if settings.batch.kind == "pk" else ""
    yield f"{none}: chunks of other genres stand in for it{where}"


def _siblings(folder: FeatureFolder, settings: TrainConfig) -> Iterator[str]:
    """Tell where batches of one genre can't be drawn, or leave subgenres out for good."""
    share = settings.batch.same_genre
    if settings.batch.kind != "pk" or not share:
        return
    count = Counter(folder.genres)
    pairs = zip(folder.labels, folder.genres, strict=True)
    alone = [label for label, genre in pairs if count[genre] == 1]
    if len(alone) == len(folder.labels):
        yield (
            "no genre has two subgenres: batch.same_genre can't act, each batch is drawn across "
            "genres"
        )
    elif alone and share == 1:
        yield (
            f"batch.same_genre is 1, so that nothing is learnt of {', '.join(alone)}: alone in "
            "their genre; give less than 1"
        )


def _of_one_genre(folder: FeatureFolder, settings: TrainConfig) -> bool:
    """Tell whether no batch holds two genres, though there are some."""
    batch, siblings = settings.batch, max(Counter(folder.genres).values()) > 1
    return batch.kind == "pk" and batch.same_genre == 1 and siblings


def _batches(folder: FeatureFolder, settings: TrainConfig) -> Iterator[str]:
    """Tell of batches wanted larger than there is music; the package's own sizes are most."""
    batch = settings.batch
    known = [BatchConfig(), *(config.load_recipe(name).batch for name in config.recipe_names())]
    per_label = Counter((track.genre, track.subgenre) for track in folder.tracks)
    per_track = np.bincount(folder.track_of)
    there = {
        "pk": {
            "subgenres": (len(per_label), "subgenres"),
            "tracks": (max(per_label.values(), default=0), "tracks in the largest subgenre"),
            "chunks": (int(per_track.max(initial=0)), "chunks of a track at most"),
        },
        "triplet": {"size": (int((folder.label_of >= 0).sum()), "chunks, a triplet of each")},
    }
    for key, (most, what) in there[batch.kind].items():
        wanted = getattr(batch, key)
        if wanted > most and wanted not in (getattr(usual, key) for usual in known):
            yield f"batch.{key} is {wanted}, but there are {most} {what}: a batch holds no more"
