"""Compute log-mel from samples by a `FeatureSpec`, and statistics of the values.

`ast` is Kaldi's filter bank as in the Audio Spectrogram Transformer (Gong et al. 2021,
arXiv:2104.01778, section 2.1) and as the hub's `ASTFeatureExtractor` computes it: samples stay in
[-1, 1], without scaling to 16 bits. `musicnn` follows Pons & Serra 2019 (arXiv:1909.06654). Each of
their frames depends only on its own samples, so a batch can be divided anywhere.

`whisper`, `clap` and `clap_fusion` call the extractors of the hub's library. Networks on waveforms
get the samples themselves, as frames of one sample and one band: `samples` as they are,
`unit_samples` with mean 0 and variance 1 in each chunk.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from subgenre.core import plugins, validation
from subgenre.errors import FeatureError

NORMALISATIONS = ("half", "none")
N_FFT = 512
AST_FRAME = 400  # samples: 25 ms at 16 kHz
AST_PREEMPHASIS = 0.97
AST_LOW_HZ = 20.0
AST_FLOOR = 1.1920928955078125e-07  # float32's epsilon, Kaldi's floor under the logarithm
MUSICNN_GAIN = 10_000.0
_AST_LOG_FLOOR = math.log(AST_FLOOR)
_WHISPER_LOWEST = (-10 + 4) / 4  # of power 1e-10
PAD_VALUE = 0.0  # pads the log-mel of a short chunk before normalisation
WHISPER_RATE, WHISPER_HOP, WHISPER_S = 16_000, 160, 30  # seconds of its window
WHISPER_FRAMES = WHISPER_S * WHISPER_RATE // WHISPER_HOP
CLAP_RATE, CLAP_HOP, CLAP_BANDS, CLAP_S = 48_000, 480, 64, 10
CLAP_FRAMES = CLAP_S * CLAP_RATE // CLAP_HOP + 1
_CPU_FRAMES = 256  # frames at a time on a CPU: the spectra of a slice stay in its cache
_DEVICE_FRAMES = 65_536


def known_front_ends(name: str) -> tuple[str, ...]:
    """Return the names of the front ends, with those of installed packages if `name` is unknown."""
    if name not in FRONT_ENDS:
        for entry in plugins.installed().values():
            with suppress(ImportError, AttributeError):  # another package's fault
                entry.load()
    return tuple(FRONT_ENDS)


def _pad_value(features: Tensor) -> Tensor:
    return features.new_full((*features.shape[:-2], 1, 1), PAD_VALUE)


@dataclass(frozen=True)
class FrontEnd:
    """Functions that turn samples into log-mel; `register` adds a front end.

    Attributes:
        name: as in `FeatureSpec.front_end`.
        frames: (number of samples, spec) -> T.
        log_mel: (samples [B, n], spec) -> log-mel [B, T, F], on the same device.
        gain: (log-mel [B, T, F], nepers [B, 1, 1]) -> the log-mel of samples whose power is
            exp(nepers) times as large; padding is unchanged.
        blank: log-mel [..., T, F] -> [..., 1, 1], the value of a frame after the end of the chunk.
    """

    name: str
    frames: Callable[[int, FeatureSpec], int]
    log_mel: Callable[[Tensor, FeatureSpec], Tensor]
    gain: Callable[[Tensor, Tensor], Tensor]
    blank: Callable[[Tensor], Tensor] = _pad_value


FRONT_ENDS: dict[str, FrontEnd] = {}


def register(front_end: FrontEnd) -> None:
    """Add a front end."""
    FRONT_ENDS[front_end.name] = front_end


@dataclass(frozen=True)
class FeatureSpec:
    """Input features of a backbone.

    Attributes:
        front_end: a name of `FRONT_ENDS`.
        rate: sample rate, Hz.
        n_mels: mel bands, F.
        hop: samples between the starts of two frames.
        normalise: `half` for (x - mean) / (2 std) over the training chunks, `none` for no change.
    """

    front_end: str
    rate: int
    n_mels: int
    hop: int
    normalise: str

    def __post_init__(self) -> None:
        """Validate the values."""
        validation.check_choice("front_end", self.front_end, known_front_ends(self.front_end))
        validation.check_choice("normalise", self.normalise, NORMALISATIONS)
        validation.check_range("rate", self.rate, 1_000, 400_000)
        validation.check_range("n_mels", self.n_mels, 1, 4_096)
        validation.check_range("hop", self.hop, 1, N_FFT)

    def frames(self, n_samples: int) -> int:
        """Return T, the number of frames of `n_samples` samples."""
        return FRONT_ENDS[self.front_end].frames(n_samples, self)

    def pad(self, features: Tensor, n_frames: int) -> Tensor:
        """Pad [..., T, F] at the end to `n_frames` frames, as the extractor pads a short chunk."""
        *batch, T, F = features.shape
        blank = FRONT_ENDS[self.front_end].blank(features)
        return torch.cat([features, blank.expand(*batch, max(0, n_frames - T), F)], dim=-2)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the front end, because a worker process may not have registered it."""
        return _restored, (FRONT_ENDS[self.front_end], dataclasses.astuple(self))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return validation.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FeatureSpec:
        """Build a spec from `to_dict`'s values.

        Raises:
            ConfigError: an unknown key or a value of another type.
        """
        return validation.from_dict(cls, values, "feature spec")


@torch.no_grad()
def log_mel(samples: Tensor, spec: FeatureSpec) -> Tensor:
    """Turn samples [B, n] in [-1, 1] at `spec.rate` into log-mel [B, T, F], float32, un-normalised.

    Runs on the device of `samples`; T is `spec.frames(n)`.

    Raises:
        FeatureError: `samples` is not [B, n].
    """
    if samples.ndim != 2:
        raise FeatureError(f"samples have shape {list(samples.shape)}; [B, n] is required")
    samples = samples.to(torch.float32)
    B, T = samples.shape[0], spec.frames(samples.shape[1])
    if B * T == 0:
        return samples.new_zeros((B, T, spec.n_mels))
    return FRONT_ENDS[spec.front_end].log_mel(samples, spec)


def _restored(front_end: FrontEnd, values: tuple[Any, ...]) -> FeatureSpec:
    register(front_end)
    return FeatureSpec(*values)


def _in_slices(
    samples: Tensor,
    spec: FeatureSpec,
    tables: tuple[Tensor, Tensor],
    compute: Callable[[Tensor, Tensor, Tensor, Tensor], None],
    T: int,
) -> Tensor:
    """Cut samples [B, n] into T frames and compute log-mel slice by slice: [B, T, F]."""
    window, filters = tables
    B, on_cpu = samples.shape[0], samples.device.type == "cpu"
    frames = samples.unfold(1, window.shape[0], spec.hop)[:, :T]  # [B, T, length], a view
    out = samples.new_empty((B, T, spec.n_mels))
    rows = 1 if on_cpu else B
    step = _CPU_FRAMES if on_cpu else max(1, _DEVICE_FRAMES // B)
    if torch.compiler.is_exporting():
        rows, step = B, T  # a graph would hold every slice
    for b, t in itertools.product(range(0, B, rows), range(0, T, step)):
        piece = (slice(b, b + rows), slice(t, t + step))
        compute(frames[piece], window, filters, out[piece])
    return out


def _ast_frames(n_samples: int, spec: FeatureSpec) -> int:
    return max(0, (n_samples - AST_FRAME) // spec.hop + 1)


def _ast_log_mel(samples: Tensor, spec: FeatureSpec) -> Tensor:
    T = spec.frames(samples.shape[1])
    return _in_slices(samples, spec, _ast_tables(spec, str(samples.device)), _ast_slice, T)


def _ast_slice(frames: Tensor, window: Tensor, filters: Tensor, out: Tensor) -> None:
    """Kaldi's order: DC removal, pre-emphasis, window, power, mel, floor, logarithm.

    The first sample of a frame also serves as the sample before it.
    """
    centred = frames - frames.mean(dim=-1, keepdim=True)
    buffer = frames.new_zeros((*frames.shape[:-1], N_FFT))
    emphasised = buffer[..., :AST_FRAME]
    torch.sub(centred[..., 1:], centred[..., :-1], alpha=AST_PREEMPHASIS, out=emphasised[..., 1:])
    emphasised[..., 0] = centred[..., 0] * (1.0 - AST_PREEMPHASIS)
    emphasised.mul_(window)
    torch.log(torch.matmul(_squares(buffer), filters).clamp_(min=AST_FLOOR), out=out)


def _ast_gain(features: Tensor, nepers: Tensor) -> Tensor:
    """Add to the log power; a band at the floor has no power and stays."""
    moved = (features + (features != 0).any(2, keepdim=True) * nepers).clamp_min(_AST_LOG_FLOOR)
    return torch.where(features <= _AST_LOG_FLOOR + 1e-3, features, moved)


def _musicnn_frames(n_samples: int, spec: FeatureSpec) -> int:
    return 1 + n_samples // spec.hop


def _musicnn_log_mel(samples: Tensor, spec: FeatureSpec) -> Tensor:
    T = spec.frames(samples.shape[1])
    padded = F.pad(samples, (N_FFT // 2, N_FFT // 2))
    return _in_slices(padded, spec, _musicnn_tables(spec, str(samples.device)), _musicnn_slice, T)


def _musicnn_slice(frames: Tensor, window: Tensor, filters: Tensor, out: Tensor) -> None:
    mel = torch.matmul(_squares(frames * window), filters)
    torch.log10(mel.mul_(MUSICNN_GAIN).add_(1.0), out=out)


def _musicnn_gain(features: Tensor, nepers: Tensor) -> Tensor:
    """Scale the power inside log10(1 + 10000 power)."""
    return torch.log10(1 + (10**features - 1).clamp_min(0) * nepers.exp())


def _sample_frames(n_samples: int, _spec: FeatureSpec) -> int:
    return n_samples


def _samples(samples: Tensor, _spec: FeatureSpec) -> Tensor:
    return samples[..., None]


def _unit_samples(samples: Tensor, _spec: FeatureSpec) -> Tensor:
    """Normalise as the hub's `Wav2Vec2FeatureExtractor` with `do_normalize`."""
    variance, mean = torch.var_mean(samples, dim=1, correction=0, keepdim=True)
    return ((samples - mean) / (variance + 1e-7).sqrt())[..., None]


def _sample_gain(samples: Tensor, nepers: Tensor) -> Tensor:
    return samples * (nepers / 2).exp()


def _no_gain(samples: Tensor, _nepers: Tensor) -> Tensor:
    """Return the samples: the normalisation has taken their level away."""
    return samples


def _whisper_frames(n_samples: int, spec: FeatureSpec) -> int:
    """Frames whose window, 200 samples either way, reaches into the samples."""
    _check_length(n_samples, spec, WHISPER_S, "Whisper's")
    return min(WHISPER_FRAMES, math.ceil((n_samples + 200) / spec.hop)) if n_samples else 0


def _whisper_log_mel(samples: Tensor, spec: FeatureSpec) -> Tensor:
    """Compute the window of 30 s, and keep what is not silence after the chunk."""
    given = _extractor("WhisperFeatureExtractor", feature_size=spec.n_mels)(
        [*samples.cpu().numpy()], sampling_rate=spec.rate, return_tensors="pt"
    )
    window: Tensor = given["input_features"].transpose(1, 2)
    return window[:, : spec.frames(samples.shape[1])].to(samples.device)


def _whisper_gain(features: Tensor, nepers: Tensor) -> Tensor:
    """Add to (log10(power) + 4) / 4."""
    return (features + nepers / (4 * math.log(10))).clamp_min(_WHISPER_LOWEST)


def _whisper_blank(features: Tensor) -> Tensor:
    """Silence: 8 powers of ten below the loudest value of the chunk, at least 1e-10."""
    return (features.amax(dim=(-2, -1), keepdim=True) - 2).clamp_min(_WHISPER_LOWEST)


def _clap_frames(n_samples: int, spec: FeatureSpec) -> int:
    _check_length(n_samples, spec, CLAP_S, "CLAP's")
    return CLAP_FRAMES if n_samples else 0


def _clap_log_mel(samples: Tensor, spec: FeatureSpec) -> Tensor:
    """Compute the window of 10 s; shorter samples are repeated in it."""
    truncation = "fusion" if spec.front_end == "clap_fusion" else "rand_trunc"  # two filter banks
    given = _extractor("ClapFeatureExtractor", frequency_min=50, truncation=truncation)(
        [*samples.cpu().numpy()], sampling_rate=spec.rate, return_tensors="pt"
    )
    window: Tensor = given["input_features"][:, 0]  # the other channels are of longer samples
    return window.to(samples.device, torch.float32)


def _clap_gain(features: Tensor, nepers: Tensor) -> Tensor:
    """Add to the power in decibels."""
    return (features + nepers * (10 / math.log(10))).clamp_min(-100.0)


def _check_length(n_samples: int, spec: FeatureSpec, most_s: int, whose: str) -> None:
    if n_samples > most_s * spec.rate:
        raise FeatureError(
            f"a chunk of {n_samples / spec.rate:g} s is longer than {whose} window of {most_s} s; "
            f"give --chunk-s {most_s} or less"
        )


@functools.lru_cache(maxsize=4)
def _extractor(kind: str, **settings: Any) -> Any:
    """Return a feature extractor of the hub's library."""
    import transformers

    return getattr(transformers, kind)(**settings)


def _squares(frames: Tensor) -> Tensor:
    """Return squared real and imaginary parts, interleaved, [..., N_FFT + 2].

    The product with the mel matrix adds the two, which saves a pass over memory.
    """
    if torch.compiler.is_exporting():  # onnxruntime's DFT is several times less exact
        return torch.matmul(frames, torch.from_numpy(_dft_matrix())).square()
    return torch.view_as_real(torch.fft.rfft(frames)).square_().flatten(-2)


def _dft_matrix() -> NDArray[np.float32]:
    """Return the discrete Fourier transform of a frame as a matrix [N_FFT, N_FFT + 2]."""
    spectrum = np.fft.rfft(np.eye(N_FFT))
    return np.stack([spectrum.real, spectrum.imag], axis=-1).reshape(N_FFT, -1).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _ast_tables(spec: FeatureSpec, device: str) -> tuple[Tensor, Tensor]:
    window = torch.hann_window(AST_FRAME, periodic=False, dtype=torch.float64)
    return _on_device(window, kaldi_mel_filters(spec.n_mels, spec.rate), device)


@functools.lru_cache(maxsize=16)
def _musicnn_tables(spec: FeatureSpec, device: str) -> tuple[Tensor, Tensor]:
    window = torch.hann_window(N_FFT, periodic=True, dtype=torch.float64)
    return _on_device(window, slaney_mel_filters(spec.n_mels, spec.rate), device)


def _on_device(window: Tensor, filters: NDArray[np.float64], device: str) -> tuple[Tensor, Tensor]:
    """Return the window and the mel matrix with doubled rows [N_FFT + 2, F] on `device`."""
    twice = torch.from_numpy(filters.repeat(2, axis=0))
    return window.to(torch.float32).to(device), twice.to(torch.float32).to(device)


def kaldi_mel_filters(n_mels: int, rate: int) -> NDArray[np.float64]:
    """Return Kaldi's mel matrix [N_FFT // 2 + 1, n_mels]: triangles in mel, 20 Hz to rate / 2.

    mel(f) = 1127 ln(1 + f / 700). Bands narrower than a bin are zero, as in Kaldi.
    """
    mel = 1127.0 * np.log1p(np.arange(N_FFT // 2 + 1) * (rate / N_FFT) / 700.0)
    low, high = 1127.0 * np.log1p(np.array([AST_LOW_HZ, rate / 2]) / 700.0)
    return _triangles(mel, np.linspace(low, high, n_mels + 2))


def slaney_mel_filters(n_mels: int, rate: int) -> NDArray[np.float64]:
    """Return the Auditory Toolbox's mel matrix [N_FFT // 2 + 1, n_mels], each band of area 1 in Hz.

    Slaney 1998, Auditory Toolbox, Interval Research TR 1998-010: linear below 1 kHz (15 mel),
    logarithmic above (27 steps for a factor of 6.4). Triangles lie in Hz,
    from 0 to rate / 2.
    """
    step = math.log(6.4) / 27.0
    top = rate / 2
    highest = 15.0 + math.log(top / 1000.0) / step if top > 1000.0 else top * 3.0 / 200.0
    mel = np.linspace(0.0, highest, n_mels + 2)
    edges: NDArray[np.float64] = np.where(
        mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp((mel - 15.0) * step)
    )
    bins = np.arange(N_FFT // 2 + 1) * (rate / N_FFT)
    filters: NDArray[np.float64] = _triangles(bins, edges) * (2.0 / (edges[2:] - edges[:-2]))
    return filters


def _triangles(
    bins: NDArray[np.floating[Any]], edges: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Return the height at each bin of triangles over (edges[i], edges[i + 1], edges[i + 2])."""
    left, peak, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - left) / (peak - left)
    falling = (right - bins[:, None]) / (right - peak)
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float64)


register(FrontEnd("ast", _ast_frames, _ast_log_mel, _ast_gain))
register(FrontEnd("musicnn", _musicnn_frames, _musicnn_log_mel, _musicnn_gain))
register(FrontEnd("samples", _sample_frames, _samples, _sample_gain))
register(FrontEnd("unit_samples", _sample_frames, _unit_samples, _no_gain))
register(
    FrontEnd("whisper", _whisper_frames, _whisper_log_mel, _whisper_gain, blank=_whisper_blank)
)
register(FrontEnd("clap", _clap_frames, _clap_log_mel, _clap_gain))
register(FrontEnd("clap_fusion", _clap_frames, _clap_log_mel, _clap_gain))
AST_SPEC = FeatureSpec("ast", rate=16_000, n_mels=128, hop=160, normalise="half")
MUSICNN_SPEC = FeatureSpec("musicnn", rate=16_000, n_mels=96, hop=256, normalise="none")


@dataclass(frozen=True)
class Statistics:
    """Count, mean and sum of squared deviations of scalars, mergeable in constant memory.

    Chan, Golub & LeVeque 1979, STAN-CS-79-773, equations 2.1; all in float64.

    Attributes:
        count: number of values. mean: of the values. m2: sum of (x - mean)^2.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    @property
    def std(self) -> float:
        """Standard deviation of the population; 0 without values."""
        return math.sqrt(self.m2 / self.count) if self.count else 0.0

    def merge(self, other: Statistics) -> Statistics:
        """Return the statistics of the union of both sets of values."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        m2 = self.m2 + other.m2 + delta * delta * (self.count * (other.count / count))
        return Statistics(count, mean, m2)

    @classmethod
    def of(cls, array: ArrayLike) -> Statistics:
        """Return the statistics of all values of an array (or a tensor on the CPU)."""
        values = np.asarray(array, dtype=np.float64)
        if not values.size:
            return cls()
        mean = float(values.mean())
        return cls(int(values.size), mean, float(np.square(values - mean).sum()))

    @classmethod
    def merged(cls, parts: Iterable[Statistics]) -> Statistics:
        """Merge all parts in their order."""
        return functools.reduce(cls.merge, parts, cls())
