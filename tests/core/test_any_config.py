"""Any configuration that is accepted comes back from its file."""

from __future__ import annotations

import dataclasses
import tomllib
from typing import Any

import tomli_w
from hypothesis import assume, given
from hypothesis import strategies as st

from subgenre import config
from subgenre.config import PreprocessConfig, TrainConfig
from subgenre.core import validation
from subgenre.errors import ConfigError

VALUES: dict[type, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(-1, 70_000),
    float: st.floats(-1, 40) | st.sampled_from([0.0, 1e-12, 0.1 + 0.2]),
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from(["pk", "hard", "musicnn", "last:2", "full", "cosine", "supcon", "cpu"]),
    tuple: st.lists(st.integers(1, 2000), max_size=3).map(tuple),
}
THESIS = config.load_recipe("thesis")
OPTIONS = [
    (section.name, option.name)
    for section in dataclasses.fields(THESIS)
    if dataclasses.is_dataclass(getattr(THESIS, section.name))
    for option in dataclasses.fields(getattr(THESIS, section.name))
]


@given(st.data(), st.lists(st.sampled_from(OPTIONS), max_size=4, unique=True))
def test_any_recipe_comes_back(data: st.DataObject, options: list[tuple[str, str]]) -> None:
    changed = THESIS
    for section, option in options:
        kind = type(getattr(getattr(THESIS, section), option))
        value = data.draw(VALUES[kind], f"{section}.{option}")
        try:
            changed = config.replace(changed, section, **{option: value})
        except ConfigError:
            assume(False)
    text = tomli_w.dumps(validation.to_dict(changed))
    assert validation.from_dict(TrainConfig, tomllib.loads(text)) == changed


@given(
    st.builds(
        PreprocessConfig,
        chunk_s=st.floats(0.5, 600),
        max_chunks=st.integers(1, 10_000),
        chunk_strategy=st.sampled_from(config.CHUNK_STRATEGIES),
        min_track_s=st.floats(0.1, 3600),
        multi=st.sampled_from(config.MULTI),
        seed=st.integers(0, 2**31),
    )
)
def test_any_settings_of_preprocess_come_back(settings: PreprocessConfig) -> None:
    assert PreprocessConfig.from_dict(tomllib.loads(tomli_w.dumps(settings.to_dict()))) == settings
