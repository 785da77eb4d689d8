"""The library as a map in the browser: a JSON API and a page that uses it.

`Library` is what the explorer shows. Encoding a file and refitting the model are functions in it,
so this package needs no torch.
"""

from subgenre.explorer.content import Correction, Encoded, Library

__all__ = ["Correction", "Encoded", "Library"]
