"""Pretrained networks behind one contract: normalised log-mel in, tokens out.

Heavy libraries are imported when a backbone is made, not when this package is.
"""

from subgenre.models.backbones.base import Backbone
from subgenre.models.backbones.registry import build, feature_spec, is_available, is_built_in, load

__all__ = ["Backbone", "build", "feature_spec", "is_available", "is_built_in", "load"]
