"""A job over many files in shards, each a process of its own on a machine that sees the files.

<place>/job.json       what all shards of the job have in common
<place>/2-of-3/        what one shard writes; `done.json` comes last, names the job by its checksum,
                       and makes the shard complete
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from subgenre.core import files, validation
from subgenre.errors import ConfigError

T = TypeVar("T")

FORMAT_VERSION = 1
_JOB, _DONE = "job.json", "done.json"
_MOST = 99_999  # shards of a job


@dataclass(frozen=True)
class Shard:
    """One of `count` equal parts of a job; `number` counts from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `I/N`.

        Raises:
            ConfigError: not of this form, or not 1 <= I <= N <= 99 999.
        """
        found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text, re.ASCII)
        number, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            raise ConfigError(
                f"shard is '{text:.80}'; give I/N with I from 1 to N, as 2/3, and N at most {_MOST}"
            )
        return cls(number, count)

    def __str__(self) -> str:
        """Return the shard as `parse` reads it."""
        return f"{self.number}/{self.count}"

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return this shard's items; those of all shards, in order, are all items."""
        first, end = (len(items) * n // self.count for n in (self.number - 1, self.number))
        return items[first:end]

    def folder(self, place: Path) -> Path:
        """Return where this shard writes."""
        return place / f"{self.number}-of-{self.count}"

    def join(self, place: Path, job: Mapping[str, Any]) -> Path:
        """Record the job, or compare it with the record of another shard; return `folder`.

        Raises:
            ConfigError: the shards in `place` are of another job; the error names what differs.
        """
        job = {"shards": self.count, **job}
        if not (place / _JOB).exists():
            files.write_json(place / _JOB, {"format_version": FORMAT_VERSION, **job})
        differing = validation.differences(read_job(place), job)
        if differing:
            raise ConfigError(
                f"{place} holds shards of another job ({differing}); give another --out, or "
                "delete that folder"
            )
        return self.folder(place)

    def finish(self, place: Path, **result: Any) -> None:
        """Mark this shard as complete; `result` is plain values."""
        record = {"format_version": FORMAT_VERSION, "job": _checksum(read_job(place)), **result}
        files.write_json(self.folder(place) / _DONE, record)

    def result(self, place: Path) -> dict[str, Any]:
        """Read what `finish` wrote."""
        path = self.folder(place) / _DONE
        way_out = f"run --shard {self} again"
        return files.read_json(path, version=FORMAT_VERSION, error=ConfigError, way_out=way_out)


def read_job(place: Path) -> dict[str, Any]:
    """Read what the shards in `place` have in common.

    Raises:
        ConfigError: damaged.
    """
    path = place / _JOB
    way_out = f"delete {place} and run all shards again"
    job = files.read_json(path, version=FORMAT_VERSION, error=ConfigError, way_out=way_out)
    count = job.get("shards")
    if type(count) is not int or not 1 <= count <= _MOST:
        raise ConfigError(f"{path} names {count!r:.80} shards; {way_out}")
    return job


def every(place: Path) -> list[Shard]:
    """List the shards of the job in `place`, none without a job."""
    if not (place / _JOB).exists():
        return []
    count = read_job(place)["shards"]
    return [Shard(number, count) for number in range(1, count + 1)]


def check_complete(place: Path) -> None:
    """Refuse a job of which a shard has not finished; what another job has left does not count.

    Raises:
        ConfigError: it names them; or a damaged record.
    """
    job, shards = _checksum(read_job(place)), every(place)
    missing = [
        s
        for s in shards
        if not (s.folder(place) / _DONE).is_file() or s.result(place).get("job") != job
    ]
    if missing:
        numbers = ", ".join(str(shard.number) for shard in missing)
        raise ConfigError(
            f"{len(missing)} of {len(shards)} shards in {place} have not finished: {numbers}; run "
            f"each of them, as --shard {missing[0]}, then merge again"
        )


def _checksum(job: Mapping[str, Any]) -> int:
    return files.checksum(json.dumps(job).encode())
