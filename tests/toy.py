"""A toy AST with random weights, as a folder, for tests that need a transformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from subgenre.models.backbones.hub import quiet

TOY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_length": 1024,
    "num_mel_bins": 128,
}


def make_ast_folder(path: Path, **config: Any) -> Path:
    """Save an `ASTForAudioClassification` of random weights with save_pretrained; same each time.

    Positions and class tokens, which the hub starts at 0, are drawn too, so that mixing them up
    shows.
    """
    from transformers import ASTConfig, ASTForAudioClassification

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ASTForAudioClassification(ASTConfig(**{**TOY, **config}))
        with torch.no_grad():
            for value in model.parameters():
                if not value.any():
                    value.normal_(0.0, 0.2)
    with quiet():
        model.save_pretrained(path)
    return path
