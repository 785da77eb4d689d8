"""MAEST: an AST trained on music styles, from the hub or from a folder.

Alonso-Jiménez, Serra & Bogdanov, "Efficient Supervised Training of Audio Transformers for Music
Representation Learning" (ISMIR 2023, arXiv:2309.16418), section 3. Its log-mel is that of musicnn,
so that the features serve both; it is normalised by two numbers of the pretraining
(https://github.com/palonso/MAEST, maest/feature_extraction_maest.py), not by those of the library.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from subgenre.audio.features import MUSICNN_SPEC, FeatureSpec
from subgenre.errors import BackboneError
from subgenre.models.backbones import ast, hub

MEAN, STD = 2.06755686098554, 1.268292820667291  # of the log-mel of Discogs20
LICENCE = "CC BY-NC-SA 4.0"
FRONT_END = {  # of its `preprocessor_config.json`
    "sampling_rate": MUSICNN_SPEC.rate,
    "num_mel_bins": MUSICNN_SPEC.n_mels,
    "hop_length": MUSICNN_SPEC.hop,
    "n_fft": 512,
    "log_compression": "logC",
    "do_normalize": True,
    "mean": MEAN,
    "std": STD,
}


class Maest(ast.Ast):
    """An AST on musicnn's log-mel [B, T, 96], which it normalises itself."""

    kind = "maest"

    @staticmethod
    def spec_of(_config: Any) -> FeatureSpec:
        """Return musicnn's front end."""
        return MUSICNN_SPEC

    def embed(self, x: Tensor) -> Tensor:
        """Normalise, then patches, class tokens and positions: [B, T, 96] -> [B, S, H]."""
        return super().embed((x - MEAN) / (2 * STD))


def feature_spec(name: str) -> FeatureSpec:
    """Return the front end, after a check of the configuration.

    Raises:
        BackboneError: no such folder, no answer from the hub, or another front end.
    """
    _read_config(name)
    return MUSICNN_SPEC


def load(name: str) -> Maest:
    """Load pretrained weights from a hub name or a folder; SafeTensors only.

    Raises:
        BackboneError: as `ast.load`.
    """
    from transformers import ASTModel

    return Maest(hub.load_model(name, ASTModel, _read_config(name)), source=name, licence=LICENCE)


def build(config: dict[str, Any]) -> Maest:
    """Make the structure that `config_dict` describes; the weights are filled in later.

    Raises:
        BackboneError: the configuration makes no network.
    """
    source = str(config.get("source", ""))
    return Maest(ast.new_model(config), source=source, licence=LICENCE)


def _read_config(name: str) -> Any:
    """Read the `ASTConfig`; its extractor's own code is not run, but its settings are checked."""
    values = hub.read_config(name)
    hub.check_no_code(values, name)
    hub.check_extractor(name, {**FRONT_END, "feature_extractor_type": "MAESTFeatureExtractor"})
    config = ast.make_config(values, name)
    if config.num_mel_bins != MUSICNN_SPEC.n_mels:
        raise BackboneError(
            f"{name} takes {config.num_mel_bins} bands, a MAEST {MUSICNN_SPEC.n_mels}; "
            f"{hub.WAYS_ON}"
        )
    return config
