"""The built-in backbone's convolutions, without the filters that have no effect.

Most of its filters decayed to nothing in the pretraining (weights around 1e-29), and of the rest
only the strongest response over frequency is used. So filters that no input can activate are
left out, and the backward pass visits one position per filter and frame, that of the maximum (the
first of equal ones), where the backward pass of a convolution visits all.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

AT_ONCE = 3  # items: allocating memory for more takes longer than the filters
ROUNDING = 2.0**-25  # half a unit in the last place of float32: what a sum with the bias loses


def frequency_max(
    conv: nn.Conv2d, x: Tensor, gain: Tensor, shift: Tensor, *, falls: Tensor, reach: float
) -> Tensor:
    """Convolve gain * x + shift and take the maximum over frequency: [N, 1, T, F] -> [N, C, T].

    For a relu behind it: a value that the relu sets to 0 may be another one below 0 here.
    Time is padded with zeros to its length, one more at the end for an even filter. For
    the filters marked in `falls` [C] the minimum is taken. `gain` and `shift` [1] are of the norm
    before the filters: kept apart, they learn without a gradient for each input value. `reach` is
    the largest absolute value of gain * x + shift that can occur.
    """
    chosen = active_filters(conv, reach)
    frames, bands = conv.kernel_size
    around = (0, 0, (frames - 1) // 2, frames // 2)
    sign = (1.0 - 2.0 * falls[chosen].to(x.dtype))[:, None, None, None]
    weight = conv.weight[chosen] * sign
    level = F.conv2d(F.pad(torch.ones_like(x[:1, :, :, :bands]), around), weight * shift)[..., 0]
    filters = weight * gain
    parts = torch.split(x, AT_ONCE)
    y = torch.cat([_maximum(F.pad(part, around), filters) for part in parts]) + level
    return _spread(conv, chosen, y * sign[..., 0, 0] + _bias(conv)[chosen, None])


def time_conv(conv: nn.Conv1d, x: Tensor, *, reach: float) -> Tensor:
    """Convolve [N, C, T] over time for a relu, as `frequency_max` does; `reach` bounds x."""
    chosen = active_filters(conv, reach)
    y = F.conv1d(x, conv.weight[chosen], _bias(conv)[chosen], padding=conv.padding)
    return _spread(conv, chosen, y)


def active_filters(conv: nn.Conv1d | nn.Conv2d, reach: float) -> Tensor:
    """Return the indices of the filters to compute if no input exceeds `reach` in absolute value.

    Left out are those whose output the relu always sets to 0; they have no gradient either. If
    nothing learns, also those whose output always equals their bias.
    """
    if torch.compiler.is_compiling():  # a choice that depends on values would break the graph
        return torch.arange(len(conv.weight), device=conv.weight.device)
    learns = torch.is_grad_enabled() and conv.weight.requires_grad
    with torch.no_grad():
        swing, bias = reach * conv.weight.abs().flatten(1).sum(1), _bias(conv)
        silent = swing + bias <= 0
        if not learns:
            silent |= swing <= ROUNDING * bias.abs()
        if silent.all():  # a convolution takes at least one
            silent[0] = False
        return torch.nonzero(~silent)[:, 0]


class _Maximum(torch.autograd.Function):
    """`conv2d` and the maximum over frequency, differentiable in the filters alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        y, where = F.conv2d(x, weight).max(dim=3)
        ctx.save_for_backward(x, where)
        ctx.shape = weight.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        x, where = ctx.saved_tensors
        n_filters, _, frames, bands = ctx.shape
        windows = x[:, 0].unfold(1, frames, 1).unfold(2, bands, 1)  # [N, T, positions, k, bands]
        N, T = windows.shape[:2]
        item = torch.arange(N, device=x.device).repeat_interleave(T)
        time = torch.arange(T, device=x.device).repeat(N)
        chosen = windows[item, time, where.transpose(0, 1).reshape(n_filters, -1)]
        each = grad.to(x.dtype).transpose(0, 1).reshape(n_filters, 1, N * T)
        return None, torch.bmm(each, chosen.flatten(2)).view(ctx.shape)


def _maximum(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve and take the maximum: [N, 1, T, F] by [C, 1, k, b] -> [N, C, T - k + 1]."""
    learns = torch.is_grad_enabled() and weight.requires_grad
    if x.requires_grad or not learns or torch.compiler.is_compiling():
        return F.conv2d(x, weight).amax(dim=3)
    y: Tensor = _Maximum.apply(x, weight)  # type: ignore[no-untyped-call]
    return y


def _spread(conv: nn.Conv1d | nn.Conv2d, chosen: Tensor, y: Tensor) -> Tensor:
    """Put [N, active, T] among the other filters' biases: [N, C, T]."""
    N, _, T = y.shape
    rest = _bias(conv)[None, :, None].expand(N, -1, T)
    return rest.index_copy(1, chosen, y.to(rest.dtype))


def _bias(conv: nn.Conv1d | nn.Conv2d) -> Tensor:
    return conv.get_parameter("bias")
