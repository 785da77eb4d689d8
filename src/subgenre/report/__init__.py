"""Figures of an evaluation for people: the HTML report, the map, the pictures, the model card.

`ReportData` holds the values that all of them show.
"""

from __future__ import annotations

from subgenre.report.card import write_card
from subgenre.report.data import ReportData
from subgenre.report.html import write_report

__all__ = ["ReportData", "write_card", "write_report"]
