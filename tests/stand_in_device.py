"""A device for tests: its tensors hold CPU values and refuse to mix with CPU tensors, as on CUDA.

It finds what a computer without a GPU can't: a tensor left on the CPU, a generator of another
device, a conversion to NumPy without `.cpu()`, float64 on a device that has none (as a Mac's). It
can't find what only a real GPU has: streams, pinned memory, bf16 rounding, NCCL.

torch marks the interface as experimental (`torch.utils.backend_registration`), so it stays here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

NAME = "standin"
_COPIES = ("aten._to_copy", "aten.copy_")  # these move values between devices
_LIBRARIES: list[torch.library.Library] = []  # keeps the registrations alive


class OnDevice(torch.Tensor):
    """A tensor of the device around the CPU tensor `values`."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> OnDevice:
        if values.dtype == torch.float64:
            raise TypeError(f"{NAME} has no float64, as a Mac's GPU: a tensor {list(values.shape)}")
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=torch.device(NAME, 0),
        )
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, op: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(op, args, kwargs or {})

    def numpy(self, *_args: Any, **_options: Any) -> Any:
        raise TypeError(f"can't convert a tensor of {NAME} to NumPy; copy it with .cpu() first")

    __array__ = numpy

    def tolist(self) -> Any:
        return self.values.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.values.__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return f"OnDevice({self.values})"


def compute(op: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Check the devices of an operation, run it on the CPU values and wrap what it returns."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    here = [isinstance(tensor, OnDevice) for tensor in tensors]
    copies = str(op).startswith(_COPIES)
    # a CPU scalar may take part, as on CUDA; so may CPU positions in an indexing of our tensor
    strangers = [t for t, ours in zip(tensors, here, strict=True) if not ours and t.dim()]
    if str(op).startswith(("aten.index.", "aten.index_put")) and here[0]:
        strangers = [t for t in strangers if t.dtype.is_floating_point]
    if any(here) and strangers and not copies:
        raise RuntimeError(
            f"{op}: expected all tensors to be on the same device, but found {NAME} and cpu"
        )
    target = kwargs.get("device")
    on_device = any(here) if target is None else torch.device(target).type == NAME
    if str(op).startswith("aten.copy_"):
        on_device = here[0]
    generator = kwargs.get("generator")
    if on_device and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"{op}: expected a generator of {NAME}, but found one of cpu")
    if on_device and target is not None:
        kwargs = {**kwargs, "device": "cpu"}
    inner = tree_map(lambda x: x.values if isinstance(x, OnDevice) else x, (args, kwargs))
    result = op(*inner[0], **inner[1])
    for tensor, ours in zip(tensors, here, strict=True):
        if ours and tensor.values is result:
            return tensor  # an operation in place returns the same object
    if not on_device:
        return result
    return tree_map(lambda x: OnDevice(x) if type(x) is torch.Tensor else x, result)


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of a device's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, _device: Any = 0) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.uint8)

    def set_rng_state(self, _state: torch.Tensor, _device: Any = 0) -> None:
        pass


def _register() -> None:
    """Make the device known to torch, once a process."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(lambda op, *args, **kwargs: compute(op, args, kwargs), "PrivateUse1")
    # torch has composite kernels of these, so that the fallback is never reached
    aten = torch.library.Library("aten", "IMPL")
    for overload in ("arange", "arange.start", "arange.start_step"):
        aten.impl(overload, _arange, "PrivateUse1")
    _LIBRARIES.extend((everything, aten))


def _arange(*args: Any, dtype: torch.dtype | None = None, **_options: Any) -> OnDevice:
    return OnDevice(torch.arange(*args, dtype=dtype))


@contextmanager
def stand_in_device() -> Iterator[torch.device]:
    """Let torch use the device for a while; what it changes for all tensors is undone."""
    if not _LIBRARIES:
        _register()
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    with ExitStack() as stack:
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        stack.callback(torch._C._set_only_lift_cpu_tensors, False)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        torch._C._set_only_lift_cpu_tensors(True)
        # a tensor subclass computes neither in inference mode nor in the fused attention kernels
        stack.enter_context(mock.patch("torch.inference_mode", torch.no_grad))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(mock.patch("torch.accelerator.synchronize"))  # it never lags behind
        yield torch.device(NAME, 0)
