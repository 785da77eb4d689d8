"""Where an index is: a folder, or a server's URL.

A URL has no password: commands print addresses, and shells keep them.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from subgenre.errors import ConfigError

Address = Path | str
"""A folder, or the text of `postgresql://...`, `http(s)://...` (Milvus) or `*.db` (Milvus Lite)."""

POSTGRES = ("postgresql://", "postgres://")
_MILVUS = ("http://", "https://")


def parse(text: str | Path) -> Address:
    """Return a folder as a path, and the address of a server as a text.

    Raises:
        ConfigError: a URL of another kind, or one with a password.
    """
    url = str(text)
    if isinstance(text, Path) or not ("://" in url or url.endswith(".db")):
        return Path(text)
    if not url.startswith((*POSTGRES, *_MILVUS)) and "://" in url:
        kind = url.partition("://")[0]
        raise ConfigError(f"{kind}:// is no index; give a folder, postgresql://..., or http://...")
    secret = [name for name in parse_qs(urlsplit(url).query) if "password" in name]
    if urlsplit(url).password or secret:
        raise ConfigError(
            "the address of the index has a password, which others could read; leave it out, and "
            "give it by PGPASSWORD or ~/.pgpass (PostgreSQL), or by MILVUS_TOKEN (Milvus)"
        )
    return url
