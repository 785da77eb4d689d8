"""Numbers as text."""

from __future__ import annotations

import pytest

from subgenre.core.text import percent


@pytest.mark.parametrize(
    ("share", "text"), [(15 / 81, "19 %"), (0.0949, "9.5 %"), (0.0951, "9.5 %"), (0.5, "50 %")]
)
def test_a_share_is_rounded_once(share: float, text: str) -> None:
    assert percent(share) == text
