"""The weights of an encoder for a folder that others may get: no path of this computer in it."""

from __future__ import annotations

from pathlib import Path

from subgenre.core import files, workspace
from subgenre.errors import RunError
from subgenre.models import encoder
from subgenre.models.encoder import Encoder


def save(whole: Encoder, out: Path) -> None:
    """Write `model.safetensors` and `encoder.json`; a backbone's folder is only named."""
    encoder.save(whole, out)
    path = out / encoder.STRUCTURE
    described = files.read_json(path, version=encoder.FORMAT_VERSION, error=RunError)
    config = described["backbone"]["config"]
    if "source" in config:
        config["source"] = public_name(config["source"])
    files.write_json(path, described)


def public_name(backbone: str) -> str:
    """Return the name of a backbone as others may read it: of a folder, its last part."""
    on_hub = workspace.HUB_NAME.fullmatch(backbone) and not Path(backbone).exists()
    return backbone if on_hub else Path(backbone).name
