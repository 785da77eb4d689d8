"""Pretrained networks behind one contract: log-mel or samples in, tokens out.

Heavy libraries are imported when a backbone is made, not when this package is.
"""

from subgenre.models.backbones.base import Backbone, Traits
from subgenre.models.backbones.registry import (
    build,
    feature_spec,
    has_name,
    import_factories,
    import_factory,
    imported,
    is_available,
    load,
    traits,
)

__all__ = [
    "Backbone",
    "Traits",
    "build",
    "feature_spec",
    "has_name",
    "import_factories",
    "import_factory",
    "imported",
    "is_available",
    "load",
    "traits",
]
