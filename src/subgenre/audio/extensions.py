"""The extensions of files that are read as audio, or listed with a reason."""

from __future__ import annotations

# names of audio, of films, which may have sound, and of audio that nobody can decode, so that each
# of these files is either read or listed with a reason
_NAMES = (
    "mp1 mp2 mp3 mpga wav wave bwf rf64 w64 flac ogg oga ogx spx opus aac adts m4a m4b m4p m4r mp4 "
    "m4v mov 3gp 3g2 mkv mka webm aif aiff aifc afc caf wma asf wmv wv ape dsf dff tta tak mpc mpp "
    "mp+ au snd ac3 eac3 ec3 dts ofr ofs shn ra rm amr aax aa mid midi avi"
)
EXTENSIONS: frozenset[str] = frozenset(f".{name}" for name in _NAMES.split())
