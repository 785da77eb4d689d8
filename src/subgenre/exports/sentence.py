"""An encoder as a module of sentence-transformers: paths of audio files in, unit vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from subgenre.config import PreprocessConfig
from subgenre.core import validation
from subgenre.errors import AudioError, MissingExtraError
from subgenre.exports import weights
from subgenre.models import encoder, file_embedding
from subgenre.models.encoder import Encoder

try:
    from sentence_transformers.base.modules import InputModule
except ImportError as problem:
    raise MissingExtraError("--sentence-transformers", "sentence-transformers") from problem


class AudioEncoder(InputModule):  # type: ignore[misc]
    """The one module of such a model.

    `modules.json` names it by its path, so the model opens where `subgenre` is installed, with
    `SentenceTransformer(FOLDER, trust_remote_code=True)`.
    """

    def __init__(self, whole: Encoder, cut: PreprocessConfig) -> None:
        super().__init__()
        self.whole, self.cut = whole, cut

    @property
    def modalities(self) -> list[str]:
        """Audio files are given by their paths, which the library takes for text or audio."""
        return ["audio", "text"]

    def preprocess(self, inputs: Sequence[str], **_: Any) -> dict[str, Any]:
        """Return the paths; `forward` decodes them."""
        return {"paths": [Path(path) for path in inputs]}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Embed the files as `subgenre embed` does: `sentence_embedding` [B, D].

        Raises:
            AudioError: a file can't be read or is silent.
        """
        device = next(self.whole.parameters()).device
        found = file_embedding.embed_files(self.whole, features["paths"], self.cut, device=device)
        if found.skipped:
            raise AudioError(f"{found.skipped[0].path} {found.skipped[0].reason}")
        vectors: Tensor = torch.from_numpy(found.vectors)
        return {**features, "sentence_embedding": vectors.to(device)}

    def get_embedding_dimension(self) -> int:
        """Return D."""
        return self.whole.size

    def get_config_dict(self) -> dict[str, Any]:
        """Return how files are cut into chunks."""
        return validation.to_dict(self.cut)

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write the weights, the structure and `config.json`."""
        weights.save(self.whole, Path(output_path))
        self.save_config(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, **options: Any) -> AudioEncoder:
        """Load the module from a folder or a name on the hub."""
        known = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        options = {name: options[name] for name in known if name in options}
        cut = PreprocessConfig.from_dict(cls.load_config(model_name_or_path, **options))
        return cls(encoder.load(Path(cls.load_dir_path(model_name_or_path, **options))), cut)


def write(whole: Encoder, cut: PreprocessConfig, out: Path) -> None:
    """Write the folder."""
    from sentence_transformers import SentenceTransformer

    module = AudioEncoder(whole, cut)
    SentenceTransformer(modules=[module], device="cpu").save_pretrained(
        str(out), create_model_card=False
    )
