"""THE model: backbone, pooling, projection head, unit norm; saved as SafeTensors and JSON.

Features [B, T, F] -> pad, normalise -> backbone, tokens [B, S, H] -> pool [B, H]
                  -> standardise -> head [B, D] -> unit norm
                  (with `fusion` the principal axes [B, pca] are joined to it: [B, D + pca])
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn

from subgenre.audio.features import Statistics
from subgenre.core import files, validation, workspace
from subgenre.errors import BackboneError, ConfigError, RunError
from subgenre.losses.cosine import unit
from subgenre.metrics.vectors import blocks, moments_of
from subgenre.models import backbones, heads
from subgenre.models.backbones import Backbone

FORMAT_VERSION = 1
WEIGHTS, STRUCTURE = "model.safetensors", "encoder.json"
_NO_AXIS = 1e-6  # an axis that varies by less than this share of the first is rounding
# A column whose deviation is below this share of its mean is constant. Rounding to float32 changes
# a value by up to 1e-6 of itself, which would be more than a thousandth of what the head sees.
_CONSTANT = 1e-3
_ALMOST_CONSTANT = 1e-2  # the same, where the backbone learns
_EARLIER = {"skip": False, "members": 1}  # parts that an encoder of an earlier version could have


@dataclass(frozen=True)
class Structure:
    """The parts of the encoder other than its backbone; see `config.ModelConfig`."""

    layer: int
    pooling: str
    head: tuple[int, ...]
    embedding_size: int
    dropout: float
    pca: int = 0
    fusion: float = 0.0
    centre: bool = False


class Encoder(nn.Module):
    """Un-normalised features [B, T, F] -> embeddings [B, D], each row of L2 norm 1.

    Attributes:
        size: length of an embedding.
        mean, std: of the training side's log-mel; 0 and 0.5 (no change) until they are set.
        pooled_mean, pooled_std: of the training chunks' pooled vectors; 0 and 1 until they are set.

    Args:
        backbone: pretrained, or filled in by `load`.
        layer: block that is pooled, a Python index.
        pooling: `mean` or `cls`.
        head: sizes of the head's hidden layers.
        embedding_size: D.
        dropout: before each linear layer of the head.
        pca: axes of the pooled vectors that the head gets, see `set_axes`; 0: all columns.
        fusion: weight of those axes in the embedding, next to the head's output.
        centre: subtract a mean from the embedding, see `set_centre`.
        generator: draws the head's first weights; without it torch's global one does.

    Raises:
        ConfigError: the backbone has no such layer or pooling, or fewer columns than `pca`.
    """

    mean: Tensor
    std: Tensor
    pooled_mean: Tensor
    pooled_std: Tensor
    axes: Tensor | None
    mean_embedding: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        *,
        layer: int = -1,
        pooling: str = "mean",
        head: tuple[int, ...] = (768, 512),
        embedding_size: int = 128,
        dropout: float = 0.0,
        pca: int = 0,
        fusion: float = 0.0,
        centre: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        backbone.check_layer(layer)
        backbone.check_pooling(pooling)
        H = backbone.hidden_size
        self.backbone = backbone
        self.structure = Structure(
            layer, pooling, tuple(head), embedding_size, dropout, pca, fusion, centre
        )
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("std", torch.tensor(0.5))
        self.register_buffer("pooled_mean", torch.zeros(H))
        self.register_buffer("pooled_std", torch.ones(H))
        if pca > H:
            raise ConfigError(
                f"pca is {pca}, but the backbone has {H} columns; give at most {H}, or "
                "--set model.pca=0 --set model.fusion=0"
            )
        self.size = embedding_size + (pca if fusion else 0)
        self.register_buffer("axes", torch.zeros(H, pca) if pca else None)
        self.register_buffer("mean_embedding", torch.zeros(self.size) if centre else None)
        sizes = [pca or H, *head, embedding_size]
        self.head = heads.build(sizes, dropout=dropout, generator=generator)

    def inputs(self, features: Tensor) -> Tensor:
        """Pad and normalise features [B, T, F] as the backbone was trained."""
        padded = self.backbone.pad(features)
        if self.backbone.spec.normalise == "none":
            return padded
        return (padded - self.mean) / (2 * self.std)

    def pooled(
        self,
        features: Tensor,
        *,
        keep: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Run the backbone and pool: [B, T, F] -> [B, H], before standardisation.

        `keep` and `generator`: patchout, see the backbone.
        """
        tokens = self.backbone(
            self.inputs(features), layer=self.structure.layer, keep=keep, generator=generator
        )
        return self.backbone.pool(tokens, self.structure.pooling)

    def prefix(self, features: Tensor, n_last: int) -> Tensor:
        """Run all but the last `n_last` blocks: [B, T, F] -> hidden [B, S, H], to be cached."""
        return self.backbone.prefix(self.inputs(features), n_last)

    def pooled_from(
        self,
        hidden: Tensor,
        n_last: int,
        *,
        keep: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Run the last `n_last` blocks on what `prefix` gave, and pool: [B, S, H] -> [B, H].

        Raises:
            ConfigError: the layer lies below these blocks.
        """
        tokens = self.backbone.suffix(
            hidden, n_last, self.structure.layer, keep=keep, generator=generator
        )
        return self.backbone.pool(tokens, self.structure.pooling)

    def project(self, pooled: Tensor) -> Tensor:
        """Standardise, run the head, scale to unit norm: [B, H] -> [B, D].

        In evaluation mode, `fusion` joins the axes to it, [B, D + pca], and `centre` subtracts the
        mean.
        """
        if self.axes is None:
            x = (pooled - self.pooled_mean) / self.pooled_std
        else:
            live = self.pooled_std.isfinite().nonzero().flatten()  # the others add nothing
            x = (pooled.index_select(1, live) - self.pooled_mean[live]) / self.pooled_std[live]
            x = x @ self.axes[live]
        out = unit(self.head(x))
        if self.training:
            return out  # the loss uses only what can learn
        if self.axes is not None and self.structure.fusion:
            plain = x / self.axes.norm(dim=0).clamp(min=1e-12)  # undoes the half-whitening
            out = heads.fused(out, plain.float(), self.structure.fusion)
        return out if self.mean_embedding is None else unit(out - self.mean_embedding)

    def forward(self, features: Tensor) -> Tensor:
        """Encode un-normalised features [B, T, F] as embeddings [B, D] of unit norm."""
        return self.project(self.pooled(features))

    def set_statistics(self, statistics: Statistics) -> None:
        """Set mean and deviation of the log-mel, from the training side alone.

        Raises:
            ConfigError: the deviation is 0, as of silence alone, and the backbone divides by it.
        """
        if self.backbone.spec.normalise != "none" and not statistics.std > 0:
            raise ConfigError(
                f"the training features have a standard deviation of {statistics.std}; "
                "they hold nothing but silence: check the recordings"
            )
        with torch.no_grad():
            self.mean.fill_(statistics.mean)
            self.std.fill_(statistics.std)

    def set_pooled_statistics(
        self, mean: Tensor, std: Tensor, *, constant: float = _CONSTANT
    ) -> None:
        """Set what `project` standardises by, [H]; a column that is constant becomes 0.

        A column is constant if its deviation is below the share `constant` of its mean.
        """
        with torch.no_grad():
            self.pooled_mean.copy_(mean)
            # anything divided by infinity is 0: a constant column has no effect on new data either
            self.pooled_std.copy_(torch.where(std > constant * mean.abs(), std, torch.inf))

    def set_axes(self, axes: Tensor) -> None:
        """Set the axes [H, pca] onto which standardised pooled vectors are projected.

        Raises:
            ConfigError: the encoder has no PCA.
        """
        if self.axes is None:
            raise ConfigError("this encoder's head takes all columns: it was built without pca")
        with torch.no_grad():
            self.axes.copy_(axes)

    def set_centre(self, vectors: ArrayLike) -> None:
        """Subtract the mean of embeddings [n, D] from now on, then scale to norm 1.

        (CL2N: Wang et al., "SimpleShot", 2019, section 3.)
        """
        if self.mean_embedding is not None:
            self.mean_embedding.copy_(torch.tensor(vectors).mean(0))


def standardise(
    encoder: Encoder,
    pooled: NDArray[np.float32],
    rows: NDArray[np.int64],
    *,
    backbone_learns: bool = False,
) -> None:
    """Set the encoder's pooled statistics, and its axes, by training chunks: `rows` of [n, H].

    If the backbone learns, a column that hardly varies is left out: the first step would move it by
    thousands of its deviations.

    The axes are the principal ones of the standardised chunks. Each is divided by the square root
    of its deviation, half of a whitening: the first few do not hide what separates similar
    subgenres, and the last are not amplified noise.
    """
    mean, std = moments_of(pooled, rows)
    constant = _ALMOST_CONSTANT if backbone_learns else _CONSTANT
    encoder.set_pooled_statistics(torch.from_numpy(mean), torch.from_numpy(std), constant=constant)
    if encoder.axes is not None:
        # in float64, which a Mac's GPU does not have
        scale = encoder.pooled_std.cpu().double().numpy()
        covariance = np.zeros((len(scale), len(scale)))
        for block in blocks(pooled, rows):
            whole = (block - mean) / scale
            covariance += whole.T @ whole / len(rows)
        encoder.set_axes(_half_white(torch.from_numpy(covariance), encoder.axes.shape[1]))


def _half_white(covariance: Tensor, n_axes: int) -> Tensor:
    """Principal axes [H, n_axes] of values with a covariance, scaled; 0 beyond their rank."""
    variance, axes = torch.linalg.eigh(covariance)  # ascending
    deviation = variance.flip(0).clamp(min=0).sqrt()
    n = min(n_axes, int((deviation > _NO_AXIS * deviation[0]).sum()))
    axes, deviation = axes.flip(1)[:, :n], deviation[:n]
    # a sign is free: the largest loading of each axis points up
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    axes = axes * largest.sign() / deviation.sqrt()
    axes = axes / deviation.mean().sqrt()  # the projected values have a mean variance of 1
    return torch.nn.functional.pad(axes, (0, n_axes - n))


def save(encoder: Encoder, folder: Path) -> None:
    """Write `model.safetensors` and `encoder.json`; the folder alone rebuilds the encoder."""
    tensors = {
        name: value.detach().to("cpu").contiguous() for name, value in encoder.state_dict().items()
    }
    # its own writer turns a full disk into an error of another kind
    files.write_bytes(folder / WEIGHTS, serialise(tensors, {"format_version": str(FORMAT_VERSION)}))
    description = {**_describe(encoder), "fingerprint": fingerprint(encoder)}
    files.write_json(folder / STRUCTURE, {"format_version": FORMAT_VERSION, **description})


def load(folder: Path) -> Encoder:
    """Rebuild an encoder from its folder alone, on the CPU, in evaluation mode.

    Raises:
        RunError: a file is missing, damaged or of another version, a tensor is missing or of
            another shape, or the two files are not of one model.
    """
    folder = Path(folder)
    description = files.read_json(
        folder / STRUCTURE,
        version=FORMAT_VERSION,
        error=RunError,
        way_out=workspace.COPY_AGAIN,
    )
    tensors = _read_weights(folder / WEIGHTS)
    with torch.device("meta"):  # takes no memory, whatever the sizes
        planned = _build(folder / STRUCTURE, description, n_tensors=len(tensors))
    _check_shapes(folder / WEIGHTS, tensors, planned.state_dict())
    encoder = _build(folder / STRUCTURE, description, n_tensors=len(tensors))
    encoder.load_state_dict(tensors, strict=True)
    found, expected = fingerprint(encoder), description.get("fingerprint")
    if found != expected:
        raise RunError(
            f"{folder / WEIGHTS} has fingerprint {found}, {STRUCTURE} was written with {expected}: "
            f"the two are not of one model; {workspace.COPY_AGAIN}"
        )
    return encoder.eval()


def _build(path: Path, description: Mapping[str, Any], n_tensors: int) -> Encoder:
    """Build the encoder that `encoder.json` describes, of at most `n_tensors` layers."""
    try:
        kind, config = description["backbone"]["kind"], description["backbone"]["config"]
        structure = _structure(description["structure"])
        n_layers = max(int(config.get("num_hidden_layers", 0)), len(structure.head))
        if n_layers > n_tensors:
            raise ConfigError(f"{n_layers} layers, and {n_tensors} tensors in {WEIGHTS}")
        backbone = backbones.build(kind, config)
        # a person's own code may have changed since
        if differing := validation.differences(description["spec"], backbone.spec.to_dict()):
            raise ConfigError(f"{kind} takes other features than in its training ({differing})")
        return Encoder(backbone, **vars(structure))
    except (
        *(KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError),
        *(ConfigError, BackboneError),
    ) as problem:
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise RunError(f"{path} describes no encoder: {reason}") from problem


def _structure(values: Mapping[str, Any]) -> Structure:
    """Read the structure; a part that no longer exists is refused, unless it is not used."""
    for name, unused in _EARLIER.items():
        if values.get(name, unused) != unused:
            raise ConfigError(f"{name} = {values[name]} no longer exists; train the model again")
    kept = {name: value for name, value in values.items() if name not in _EARLIER}
    return validation.from_dict(Structure, kept, STRUCTURE)


def fingerprint(encoder: Encoder) -> str:
    """Hash the weights and the structure: 32 hex digits, the same on every device."""
    return _hash(encoder, _describe(encoder))


def backbone_fingerprint(backbone: Backbone) -> str:
    """Hash the weights and the structure of a backbone, wherever it came from: 32 hex digits."""
    return _hash(backbone, _describe_backbone(backbone))


@contextmanager
def evaluating(encoder: Encoder, device: torch.device | str) -> Iterator[None]:
    """Move the encoder to the device, where it stays, and set evaluation mode for a while."""
    modes = [(module, module.training) for module in encoder.modules()]
    encoder.to(device).eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _describe(encoder: Encoder) -> dict[str, Any]:
    """Return what `load` needs in addition to the weights."""
    return {
        "backbone": _describe_backbone(encoder.backbone),
        "spec": encoder.backbone.spec.to_dict(),
        # the fingerprint of a model must not change: it names what earlier versions could choose
        "structure": {
            **_EARLIER,
            **{k: v for k, v in asdict(encoder.structure).items() if k != "centre" or v},
        },
    }


def _describe_backbone(backbone: Backbone) -> dict[str, Any]:
    return {"kind": backbone.kind, "config": backbone.config_dict()}


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file."""
    if not path.is_file():
        raise RunError(f"{path} does not exist; {workspace.COPY_AGAIN}")
    try:
        found: dict[str, Tensor] = load_file(path)
    except (OSError, ValueError, LookupError, SafetensorError) as problem:
        raise RunError(f"{path} is damaged ({problem}); copy it again, or train again") from problem
    return found


def _check_shapes(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse tensors other than those of `expected`, or of other shapes."""
    for name, value in expected.items():
        if name not in found:
            raise RunError(f"{path} has no tensor {name}; copy it again, or train again")
        if found[name].shape != value.shape:
            raise RunError(
                f"{path}: tensor {name} has shape {list(found[name].shape)}, "
                f"{list(value.shape)} is expected; it belongs to another {STRUCTURE}"
            )
    if more := sorted(set(found) - set(expected)):
        raise RunError(f"{path} holds the unknown tensor {more[0]}; it belongs to another model")


def _hash(module: nn.Module, description: Mapping[str, Any]) -> str:
    """Hash weights and structure: 32 hex digits, the same on every device."""
    backbone = description.get("backbone", description)
    # the source of the weights is in the description, but does not change the model
    config = {k: v for k, v in backbone["config"].items() if k not in ("source", "licence")}
    structure = [config, description.get("structure"), backbone["kind"]]
    digest = hashlib.sha256(json.dumps(structure, sort_keys=True).encode())
    for name, value in sorted(module.state_dict().items()):
        tensor = value.detach().to("cpu").contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()[:32]
