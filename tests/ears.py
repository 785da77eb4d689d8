"""A listener for tests: it keeps what is said, and what is warned of."""

from __future__ import annotations

from subgenre.talk import Silent


class Ear(Silent):
    def __init__(self) -> None:
        self.told: list[str] = []

    def say(self, text: str) -> None:
        self.told.append(text)

    warn = say
