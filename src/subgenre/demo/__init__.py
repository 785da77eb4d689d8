"""A small library of synthetic music: audio files from a seed; its subgenres differ in rhythm.

    styles       what makes each subgenre: tempo, drums, bass, harmony (data)
    score        style + generator -> notes and hits
    instruments  drum kits and synthesiser patches, the same for all styles
    render       score -> samples, with a random mix, spectrum and level
    music_files  samples -> mp3 and wav files with tags, in genre/subgenre folders

Everything else is drawn from one distribution for all styles: instruments, mix, equalisation,
loudness, noise floor, container, bit rate, duration, tags.
"""

from __future__ import annotations

from subgenre.demo.music_files import make_library
from subgenre.demo.styles import STYLES

__all__ = ["STYLES", "make_library"]
