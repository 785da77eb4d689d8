"""Numbers as text."""

from __future__ import annotations

import pytest

from subgenre.core.text import percent, percent_interval, signed, two_digits


@pytest.mark.parametrize(
    ("share", "text"), [(15 / 81, "19 %"), (0.0949, "9.5 %"), (0.0951, "9.5 %"), (0.5, "50 %")]
)
def test_a_share_is_rounded_once(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        *((-0.0, 0, "0"), (0.4, 0, "0"), (-0.4, 0, "0"), (4.4, 0, "+4"), (-4.4, 0, "-4")),
        *((-0.0004, 3, "0.000"), (0.0006, 3, "+0.001")),
    ],
)
def test_zero_has_no_sign(value: float, digits: int, text: str) -> None:
    assert signed(value, digits) == text


def test_an_end_of_an_interval_is_no_negative_zero() -> None:
    assert percent_interval(0.1, -0.0, 0.3) == "10 % (0 to 30)"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0416, "0.042"), (6.06, "6.1"), (95.4, "95"), (64_300, "64,000")]
)
def test_two_digits_are_written_without_an_exponent(value: float, text: str) -> None:
    assert two_digits(value) == text
