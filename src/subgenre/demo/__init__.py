"""A small library of synthetic music: real audio files, made from a seed, told apart by rhythm.

    styles    what a listener would tell each subgenre by: tempo, drums, bass, harmony (data)
    score     style + generator -> notes and hits
    sounds    drum kits and synthesiser patches, one palette for all styles
    render    score -> samples, with a random mix, spectrum and level
    library   samples -> mp3 and wav files with tags, in genre/subgenre folders
    baseline  how far loudness and the mean spectrum get without listening to rhythm

Every cue that a model could use without hearing the music is drawn from one distribution for all
styles: sounds, mix, equalisation, loudness, noise floor, container, bit rate, duration, tags.
"""

from __future__ import annotations

from subgenre.demo.baseline import loudness_spectrum_accuracy
from subgenre.demo.library import make_library
from subgenre.demo.styles import STYLES

__all__ = ["STYLES", "loudness_spectrum_accuracy", "make_library"]
