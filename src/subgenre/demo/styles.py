"""The styles of the demo as data: tempo, drum patterns, bass lines, harmony and arrangement.

A pattern is text, one character a sixteenth note, as many bars as it is long / 16. Drums: `x`
loud, `o` medium, `-` soft, `.` rest. Melodic parts: a digit or letter strikes the scale degree
that many steps above the chord's root (`0` root, `4` fifth, `7` octave, `a` the tenth step), `_`
holds it, `.` rests. Nothing here says how a style sounds: every style draws its drum kit, its
patches, its mix, its spectrum and its loudness from the same distributions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

STEPS = 16
MINOR = (0, 2, 3, 5, 7, 8, 10)
DORIAN = (0, 2, 3, 5, 7, 9, 10)
PHRYGIAN = (0, 1, 3, 5, 7, 8, 10)
MAJOR = (0, 2, 4, 5, 7, 9, 11)


@dataclass(frozen=True)
class Part:
    """A melodic voice: alternative patterns, and how its notes are played.

    `size` notes of a chord in stacked thirds (1: a single line); `octave` in MIDI octaves;
    `gate` the share of its steps for which a note sounds; `attack_s` its swell; `sweep` how far
    the filter wanders over the bars (0 to 1); `echo` the send to a delay in time with the beat.
    """

    patterns: tuple[str, ...]
    size: int = 1
    octave: int = 4
    gate: float = 0.9
    attack_s: float = 0.004
    sweep: float = 0.0
    echo: float = 0.0


@dataclass(frozen=True)
class Style:
    """One subgenre: what a listener would tell it by.

    `tempo` in beats a minute and `swing` (delay of every second sixteenth, in sixteenths) are
    ranges to draw from; `progressions` hold scale degrees, each kept for `bars_a_chord` bars.
    """

    genre: str
    name: str
    tempo: tuple[float, float]
    swing: tuple[float, float]
    scales: tuple[tuple[int, ...], ...]
    progressions: tuple[tuple[int, ...], ...]
    bars_a_chord: int
    drums: dict[str, tuple[str, ...]]
    parts: dict[str, Part]
    pump: float = 0.0
    fills: bool = True
    rests: tuple[str, ...] = field(default=("kick",))


FOUR = ("x...x...x...x...",)
BACKBEAT = ("....x.......x...",)

STYLES: tuple[Style, ...] = (
    Style(
        genre="house",
        name="deep house",
        tempo=(118, 123),
        swing=(0.22, 0.34),
        scales=(DORIAN, MINOR),
        progressions=((0, 3), (0, 6, 3, 4), (0, 5, 3, 6)),
        bars_a_chord=1,
        drums={
            "kick": FOUR,
            "clap": BACKBEAT,
            "open": ("..x...x...x...x.",),
            "hat": ("-.-o-.-o-.-o-.-o", "--.o--.o--.o-.-o"),
            "shaker": ("o-o-o-o-o-o-o-o-",),
        },
        parts={
            "bass": Part(("0..0..7...0...4.", "0..0...0..4.0...", "0.....0.7..0..4."), 1, 2, 0.8),
            "chord": Part(("...0__....0_....", "0_....0__..0_...", "..0_...0_....0_."), 4, 4, 0.9),
        },
        pump=0.4,
    ),
    Style(
        genre="house",
        name="acid house",
        tempo=(124, 128),
        swing=(0.0, 0.1),
        scales=(PHRYGIAN, MINOR),
        progressions=((0,), (0, 0, 0, 1)),
        bars_a_chord=2,
        drums={
            "kick": FOUR,
            "clap": BACKBEAT,
            "open": ("..x...x...x...x.",),
            "snare": ("..............oo", "...........o..o.", "................"),
        },
        parts={
            "lead": Part(
                (
                    "00700_0a0070_00307a0_0700_0070a0",
                    "0_07003007a0_070",
                    "0000700_0a007_03",
                    "070_0a0030070_00",
                ),
                1,
                3,
                0.75,
                sweep=1.0,
            ),
        },
        pump=0.2,
    ),
    Style(
        genre="techno",
        name="techno",
        tempo=(131, 136),
        swing=(0.0, 0.04),
        scales=(PHRYGIAN, MINOR),
        progressions=((0,),),
        bars_a_chord=4,
        drums={
            "kick": FOUR,
            "hat": ("x-o-x-o-x-o-x-o-", "xoooxoooxoooxooo"),
            "perc": ("o..o..o..o..o..o..o..o..o..o..o.", "..o..o.o..o..o.."),
            "rim": ("...o......o.....", ".......o......o."),
        },
        parts={
            "bass": Part((".000.000.000.000",), 1, 2, 0.7),
            "chord": Part(
                ("......0.........", "...0............", "..........0....."), 3, 4, 0.6, echo=0.7
            ),
        },
        pump=0.6,
    ),
    Style(
        genre="techno",
        name="trance",
        tempo=(138, 142),
        swing=(0.0, 0.0),
        scales=(MINOR,),
        progressions=((0, 5, 2, 6), (0, 3, 5, 6), (0, 5, 3, 4)),
        bars_a_chord=1,
        drums={
            "kick": FOUR,
            "clap": BACKBEAT,
            "open": ("..x...x...x...x.",),
        },
        parts={
            "bass": Part(("..0...0...0...0.", ".000.000.000.000"), 1, 2, 0.8),
            "chord": Part(("0_______________",), 3, 4, 1.0, 0.05),
            "lead": Part(
                ("024702470247024a", "0_2470_2470_247a", "7420742074207420", "0470470470470472"),
                1,
                5,
                0.7,
                echo=0.4,
            ),
        },
        pump=0.7,
    ),
    Style(
        genre="techno",
        name="hardstyle",
        tempo=(150, 156),
        swing=(0.0, 0.0),
        scales=(MINOR,),
        progressions=((0, 5, 6, 4), (0, 0, 5, 6)),
        bars_a_chord=1,
        drums={
            "kick": FOUR,
            "clap": ("x...x...x...x...",),
            "snare": ("....x.......x...",),
        },
        parts={
            "bass": Part(("..00..00..00..00", "..0_..0_..0_..0_"), 1, 2, 1.0),
            "lead": Part(
                (
                    "7__7__6_4__4__2_",
                    "4__2__4_7__6__4_7__9__7_6__4__2_",
                    "0__2__4_7__6__4_",
                ),
                1,
                5,
                0.95,
            ),
        },
        pump=0.8,
    ),
    Style(
        genre="breaks",
        name="drum and bass",
        tempo=(172, 176),
        swing=(0.0, 0.06),
        scales=(MINOR, PHRYGIAN),
        progressions=((0, 5), (0, 6), (0, 3, 5, 6)),
        bars_a_chord=2,
        drums={
            "kick": ("x.........x.....", "x.x.......x.....", "x.........x...x."),
            "snare": ("....x.......x...", "....x..-.-..x..-"),
            "hat": ("x-x-x-x-x-x-x-x-", "o.xoo.xoo.xoo.xo"),
        },
        parts={
            "bass": Part(
                ("0_______________0_________4_____", "0_____0_______7_", "0_________0_6___"),
                1,
                2,
                1.0,
            ),
            "chord": Part(("0_______________",), 4, 4, 1.0, 0.3),
        },
        rests=("bass",),
    ),
    Style(
        genre="breaks",
        name="breakbeat",
        tempo=(126, 132),
        swing=(0.08, 0.2),
        scales=(DORIAN, MINOR),
        progressions=((0,), (0, 3), (0, 6)),
        bars_a_chord=2,
        drums={
            "kick": ("x.x.......x..x..", "x.....x...xx....", "x..x..x...x....."),
            "snare": ("....x..o.o..x..o", "....x..-.-.ox...", "....x..o....x.o."),
            "hat": ("x.x.x.x.x.x.x.x.", "x.xox.x.x.xox.x."),
        },
        parts={
            "bass": Part(("0.0..4.7..0.6.4.", "0..00..3.0..4.6.", "0.7.0..0.6..4.0."), 1, 2, 0.6),
            "chord": Part(("0..0............", "..........0..0..", "......0..0......"), 3, 5, 0.5),
        },
        rests=("bass",),
    ),
    Style(
        genre="downtempo",
        name="ambient",
        tempo=(58, 70),
        swing=(0.0, 0.0),
        scales=(MAJOR, DORIAN),
        progressions=((0, 3), (0, 4, 5, 3), (0, 2, 3, 5)),
        bars_a_chord=1,
        drums={},
        parts={
            "bass": Part(("0_______________",), 1, 3, 1.0, 0.8),
            "chord": Part(("0_______________",), 4, 4, 1.1, 1.2),
            "lead": Part(
                ("7.......4.......", "..4.....9.......", "4...........7..."), 1, 5, 4, 0.1, 0, 0.8
            ),
        },
        fills=False,
        rests=("lead",),
    ),
    Style(
        genre="downtempo",
        name="dub",
        tempo=(70, 76),
        swing=(0.05, 0.2),
        scales=(MINOR, DORIAN),
        progressions=((0, 3), (0, 6), (0, 0, 3, 6)),
        bars_a_chord=1,
        drums={
            "kick": ("........x.......", "........x.....o."),
            "rim": ("........x.......", "....-...x..-...."),
            "hat": ("x.-.x.-.x.-.x.-.", "o.xoo.xoo.xoo.xo"),
        },
        parts={
            "bass": Part(("0_..2_4_..0_..6_", "..0_0_4_2_0.....", "0_0_..2_4_..2_0_"), 1, 2, 0.9),
            "chord": Part(("....0.......0...", "....0.0.....0.0."), 3, 5, 0.6, echo=0.9),
        },
        rests=("chord",),
    ),
)
