"""For the reference: each name of a docstring's section gets a line of its own, as griffe reads it.

In the package, a line may tell of several: `lr: of the head. backbone_lr: of the backbone`, and
several names may share a text: `time_mask, freq_mask: widest mask`.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_SECTION = re.compile(r"^(Args|Attributes|Raises):\n((?: {4}.*\n?)+)", re.MULTILINE)
_NEXT = re.compile(r"(?<=[.;]) (?=[A-Za-z_]\w*(?:, \w+)*: )")
_SHARED = re.compile(r"^ {4}(\w+(?:, \w+)+)(?:\.$|: (.*))", re.MULTILINE)


class OneNameALine(Extension):
    """Rewrites the docstring of each object."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring:
            obj.docstring.value = _SECTION.sub(_rewrite, obj.docstring.value)


def _rewrite(section: re.Match[str]) -> str:
    lines = _NEXT.sub("\n    ", section[2])
    return f"{section[1]}:\n{_SHARED.sub(_repeat, lines)}"


def _repeat(shared: re.Match[str]) -> str:
    text = shared[2] or "the message says why and what to do."
    return "\n".join(f"    {name}: {text}" for name in shared[1].split(", "))
