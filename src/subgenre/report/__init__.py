"""The figures of a run as a person reads them: map, plots, one HTML report, a model card."""

from __future__ import annotations

from subgenre.report.card import write_card
from subgenre.report.data import ReportData
from subgenre.report.html import write_report

__all__ = ["ReportData", "write_card", "write_report"]
