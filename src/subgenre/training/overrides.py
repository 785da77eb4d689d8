"""Options put over a recipe: all at once, with the checks and words of a recipe file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from subgenre.config import TrainConfig
from subgenre.core import validation
from subgenre.errors import ConfigError


def put(
    settings: TrainConfig,
    given: Mapping[str, Any],
    *,
    asked: Collection[str] = (),
    where: str = "options",
) -> TrainConfig:
    """Return a recipe with some options replaced.

    Fewer epochs shorten the head's own, so that the backbone learns in the last at least.

    Args:
        given: `section.key` -> value.
        asked: what a person gave by hand, beside `given`: none of it is shortened.
        where: begins the words of an error.

    Raises:
        ConfigError: an unknown option, or a value that makes no sense.
    """
    plain = validation.to_dict(settings)
    sections = tuple(name for name, part in plain.items() if isinstance(part, dict))
    for name, value in given.items():
        section, dot, key = name.partition(".")
        if not dot:
            raise ConfigError(f"no option '{name}': write it as section.key")
        if section not in sections:
            near = validation.nearest(section, sections)
            raise ConfigError(f"no section '{section}'{near}; choose {validation.either(sections)}")
        plain[section][key] = value
    epochs, first = given.get("optim.epochs"), plain["optim"]["head_epochs"]
    if isinstance(epochs, int) and "optim.head_epochs" not in {*given, *asked} and first >= epochs:
        plain["optim"]["head_epochs"] = max(0, epochs - 1)
    return validation.from_dict(TrainConfig, plain, where)
