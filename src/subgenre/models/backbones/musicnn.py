"""The built-in backbone: MSD_musicnn, a small CNN trained to tag music; its weights are here.

Pons & Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging"
(ISMIR late-breaking 2019, arXiv:1909.06654); architecture: Pons et al., "End-to-end learning for
music audio tagging at scale" (ISMIR 2018, arXiv:1711.02520), section 3. Names of the parameters are
those of the weights file.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subgenre.audio.features import MUSICNN_SPEC, FeatureSpec
from subgenre.errors import BackboneError, ConfigError
from subgenre.models.backbones.base import Backbone, refuse_patchout
from subgenre.models.backbones.pruned_conv import active_filters, frequency_max, time_conv

PATCH = 187  # frames of 16 ms: 3 s; also the hop, as in the original
BANDS = 96
TIMBRAL = ((38, 204), (67, 204))  # bands, filters; 7 frames wide
TEMPORAL = ((128, 51), (64, 51), (32, 51))  # frames, filters; 1 band high
FRONT = sum(filters for _, filters in TIMBRAL + TEMPORAL)  # 561
MID = 64
POOLED = 2 * (FRONT + 3 * MID)  # 1506: maximum and mean of each
EPSILON = 1e-3  # of every norm
# Bounds of the filters' inputs: a value is the logarithm of a spectrum, behind
# the first norm 2 for samples within [-1, 1]; the front's output can reach 3,200 then (seen: 40).
REACH_FRONT, REACH_MID = 10.0, 10_000.0
WEIGHTS = "MSD_musicnn.safetensors"
TAG_HEAD = ("bn_flat.", "dense.", "bn_dense.", "out.")  # the original's layers on the pools


class FixedNorm(nn.Module):
    """Batch norm by the statistics of the pretraining, while training too.

    Batches here are small and of few playlists: their own statistics would be noise, and cached
    outputs of the frozen network would differ from computed ones. Gain and bias can learn.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_channels))
        self.bias = nn.Parameter(torch.zeros(n_channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(n_channels))
        self.register_buffer("running_var", torch.ones(n_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, ...] channel by channel."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=EPSILON
        )

    def centred(self, x: Tensor) -> Tensor:
        """Normalise as `forward` does, gain and bias left out."""
        return F.batch_norm(x, self.running_mean, self.running_var, eps=EPSILON)


class Musicnn(Backbone):
    """MSD_musicnn up to its pools: a token a patch of 187 frames (3 s).

    A token holds the maximum and the mean over time of 753 channels, interleaved [max0, mean0,
    max1, ...]: the order of the weights file. A remainder of less than a patch is dropped. Of its
    two blocks the first is the filters in front, which find a sound; the second the convolutions
    over time behind them. The pools are of both, so that there is one layer to choose: the last.
    """

    kind = "musicnn"
    spec = MUSICNN_SPEC
    hidden_size = POOLED
    n_blocks = 2
    transformer = False
    licence = "ISC"
    source = "musicnn"

    def __init__(self) -> None:
        super().__init__()
        self.bn_in = FixedNorm(1)
        self.timbral = nn.ModuleList(
            nn.Conv2d(1, filters, (7, bands)) for bands, filters in TIMBRAL
        )
        self.temporal = nn.ModuleList(
            nn.Conv2d(1, filters, (frames, 1)) for frames, filters in TEMPORAL
        )
        self.bn_front = nn.ModuleList(FixedNorm(n) for _, n in TIMBRAL + TEMPORAL)
        self.mid = nn.ModuleList(nn.Conv1d(n, MID, 7, padding=3) for n in (FRONT, MID, MID))
        self.bn_mid = nn.ModuleList(FixedNorm(MID) for _ in range(3))

    def prefix(self, x: Tensor, n_last: int) -> Tensor:
        """Cut log-mel [B, T, 96] into patches, and run the front where one block is left to run.

        Returns:
            [B, P, 187 * 96], or [B, P, n * 187] of the n active filters in front.

        Raises:
            ConfigError: more blocks than two, or none.
        """
        B, T, n_bands = x.shape
        P = T // PATCH
        patches = x[:, : P * PATCH].reshape(B, P, PATCH * n_bands)
        if self._check_last(n_last) == self.n_blocks:
            return patches
        front = self._front(patches.reshape(B * P, 1, PATCH, n_bands))
        return front[:, self._active()].reshape(B, P, -1)

    def suffix(
        self,
        hidden: Tensor,
        n_last: int,
        layer: int = -1,
        *,
        keep: float = 1.0,
        generator: torch.Generator | None = None,  # noqa: ARG002 (nothing is drawn here)
    ) -> Tensor:
        """Run one block or both on what `prefix` gave: tokens [B, P, 1506].

        Raises:
            ConfigError: a layer other than the last, patchout, or no such blocks.
        """
        self.check_layer(layer)
        refuse_patchout(keep, self.kind)
        B, P, _ = hidden.shape
        if self._check_last(n_last) == self.n_blocks:
            front = self._front(hidden.reshape(B * P, 1, PATCH, BANDS))  # [B * P, 561, 187]
        else:
            answers = hidden.reshape(B * P, -1, PATCH)
            rest = self._constant().to(answers.dtype).expand(B * P, -1, PATCH)
            front = rest.index_copy(1, self._active(), answers)
        x = torch.cat([front, *self._mid(front)], dim=1)  # [B * P, 753, 187]
        return torch.stack([x.amax(dim=2), x.mean(dim=2)], dim=2).reshape(B, P, POOLED)

    def pad(self, x: Tensor) -> Tensor:
        """Pad [B, T, F] to one patch where it is shorter; 0.0 is silence in this front end."""
        return F.pad(x, (0, 0, 0, max(0, PATCH - x.shape[1])))

    def config_dict(self) -> dict[str, Any]:
        """Return nothing: the structure is fixed."""
        return {}

    def check_layer(self, layer: int) -> None:
        """Accept the last layer only."""
        if layer not in (-1, self.n_blocks - 1):
            raise ConfigError(f"layer is {layer!r}; musicnn pools both its blocks: leave it at -1")

    def check_pooling(self, how: str) -> None:
        """Accept the mean over the patches only."""
        super().check_pooling(how)
        if how != "mean":
            raise ConfigError(f"pooling is '{how}'; musicnn has no class token: use mean")

    def set_checkpointing(self, on: bool) -> None:
        """Accept only that it stays off."""
        if on:
            raise ConfigError("checkpointing is for transformers; musicnn needs none: leave it off")

    def parameters_by_depth(self) -> list[list[nn.Parameter]]:
        """Return the input norm, the front, the convolutions over time, and nothing above."""
        front = [*self.timbral.parameters(), *self.temporal.parameters()]
        middle = [*self.mid.parameters(), *self.bn_mid.parameters()]
        below = list(self.bn_in.parameters())
        return [below, [*front, *self.bn_front.parameters()], middle, []]

    def _front(self, x: Tensor) -> Tensor:
        """Timbral and temporal filters, each the maximum over frequency: [N, 561, T]."""
        outputs = []
        x, gain, shift = self.bn_in.centred(x), self.bn_in.weight, self.bn_in.bias
        for conv, norm in self._filters():
            # relu and norm are monotone in a channel, so that the maximum may come before them: of
            # the smallest value where the norm's gain is negative
            falls = norm.weight < 0
            y = frequency_max(conv, x, gain, shift, falls=falls, reach=REACH_FRONT)
            outputs.append(norm(F.relu(y)))
        return torch.cat(outputs, dim=1)

    def _filters(self) -> Iterator[tuple[Any, Any]]:
        """The layers of the front, side by side, each with its norm."""
        yield from zip([*self.timbral, *self.temporal], self.bn_front, strict=True)

    def _active(self) -> Tensor:
        """Channels of the frozen front that an input can change, of 561."""
        with torch.no_grad():
            found, start = [], 0
            for conv, _ in self._filters():
                found.append(active_filters(conv, REACH_FRONT) + start)
                start += conv.out_channels
        return torch.cat(found)

    def _constant(self) -> Tensor:
        """The constant output of each inactive filter: [1, 561, 1]."""
        given = [norm(F.relu(conv.bias[None, :, None])) for conv, norm in self._filters()]
        return torch.cat(given, dim=1).detach()

    def _check_last(self, n_last: int) -> int:
        if n_last not in (1, self.n_blocks):
            raise ConfigError(
                f"the last {n_last} blocks are requested; musicnn has {self.n_blocks}"
            )
        return n_last

    def _mid(self, front: Tensor) -> list[Tensor]:
        """Three convolutions over time, the second and third residual: each [N, 64, T]."""
        outputs: list[Tensor] = []
        for conv, norm in zip([*self.mid], self.bn_mid, strict=True):  # a list: untyped for mypy
            below = outputs[-1] if outputs else front
            y = norm(F.relu(time_conv(conv, below, reach=REACH_MID)))
            outputs.append(y + below if outputs else y)
        return outputs


def feature_spec(_name: str) -> FeatureSpec:
    """Return the front end."""
    return MUSICNN_SPEC


def is_available(_name: str) -> bool:
    """The weights are always in the package."""
    return True


def build(config: dict[str, Any]) -> Musicnn:
    """Make the structure, which is fixed; the weights are filled in later.

    Raises:
        BackboneError: a configuration, though there is nothing to configure.
    """
    if config:
        raise BackboneError(f"musicnn takes no configuration; found {', '.join(config)}")
    return Musicnn().eval()


def load(_name: str = "musicnn") -> Musicnn:
    """Build the network with the weights in the package; those of the original's tags are left out.

    Raises:
        BackboneError: the weights file does not fit, as in a damaged installation.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as read

    network = Musicnn()
    try:
        tensors = read(resources.files("subgenre.models.backbones").joinpath(WEIGHTS).read_bytes())
        tensors = {name: value for name, value in tensors.items() if not name.startswith(TAG_HEAD)}
        network.load_state_dict(tensors, strict=True)
    except (OSError, RuntimeError, SafetensorError) as problem:
        raise BackboneError(
            f"the built-in weights {WEIGHTS} can't be used ({problem}); install subgenre again"
        ) from problem
    return network.eval()
