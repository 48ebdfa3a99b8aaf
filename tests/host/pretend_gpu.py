"""A device that computes on the CPU and answers like a GPU: for tests where there is no GPU.

Its tensors say that they are on `DEVICE` (the name "meta", which needs no driver). As on a GPU, an operation
on them and on tensors of the CPU together is refused, and so is reading them as numpy. Speed, memory and the
rounding of a real GPU are not pretended.
"""

from __future__ import annotations

from functools import partial

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

DEVICE, _CPU = torch.device("meta"), torch.device("cpu")
aten = torch.ops.aten
#: What a GPU does with tensors of both kinds: copies, and indexing by indices of the CPU.
BETWEEN = (aten.copy_, aten._to_copy, aten.index, aten.index_put_, aten.index_put, aten._index_put_impl_)


class OnGPU(torch.Tensor):
    """A tensor of the pretended device; `inner` holds its numbers."""

    __slots__ = ["inner"]
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor):
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device=DEVICE, requires_grad=inner.requires_grad,
        )  # fmt: skip
        made.inner = inner
        return made

    def new_tensor(self, data, *, dtype=None, device=DEVICE, **_):
        return torch.as_tensor(data, dtype=dtype or self.dtype, device=device)

    def tolist(self):
        return self.inner.tolist()

    def numpy(self, **_):
        raise TypeError("can't convert a tensor of the GPU to numpy; use Tensor.cpu() to copy it first")

    def __repr__(self, **_) -> str:
        return f"OnGPU({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class PretendGPU(TorchDispatchMode):
    """While it is entered, what is made or moved with `device=DEVICE` is there."""

    def __enter__(self):
        self._plain = {name: getattr(torch, name) for name in ("tensor", "as_tensor", "inference_mode")}
        # numbers of Python are put on a device below the place where a mode could see it
        for name in ("tensor", "as_tensor"):
            setattr(torch, name, partial(_made, self._plain[name]))
        # wrapped tensors from outside have no views in there
        torch.inference_mode = torch.no_grad
        return super().__enter__()

    def __exit__(self, *error):
        for name, plain in self._plain.items():
            setattr(torch, name, plain)
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def _made(make, data, *, device=None, **options):
    if isinstance(data, OnGPU):
        return data.to(device=device or DEVICE, dtype=options.get("dtype"))
    made = make(data, **options)
    return made if device is None else made.to(device)


def run(func, args, kwargs):
    if func.overloadpacket is aten._has_compatible_shallow_copy_type:
        return isinstance(args[0], OnGPU) == isinstance(args[1], OnGPU)
    flat, shape = tree_flatten((args, kwargs))
    held = {id(a.inner): a for a in flat if isinstance(a, OnGPU)}
    away = [a for a in flat if isinstance(a, torch.Tensor) and not isinstance(a, OnGPU) and a.dim() > 0]
    if held and away and func.overloadpacket not in BETWEEN:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {func} got {list(held.values())} of the GPU "
            f"and {[(tuple(a.shape), a.dtype) for a in away]} of the CPU"
        )
    named = [a for a in flat if isinstance(a, torch.device)]
    inside = [a.inner if isinstance(a, OnGPU) else _CPU if isinstance(a, torch.device) else a for a in flat]
    args, kwargs = tree_unflatten(inside, shape)
    out = func(*args, **kwargs)
    if named:
        there = named[-1].type == DEVICE.type
    elif func.overloadpacket in (aten.copy_, aten.index_put_, aten._index_put_impl_):
        there = isinstance(flat[0], OnGPU)
    else:
        there = bool(held)
    if named and there != bool(held) and isinstance(out, torch.Tensor) and any(out is a for a in inside):
        out = out.clone()  # moved without a copy: on a GPU it would not be the same memory

    def placed(made):
        if not there or not isinstance(made, torch.Tensor):
            return made
        # a conjugate that is only noted would be forgotten by the wrapper
        return held[id(made)] if id(made) in held else OnGPU(made.resolve_conj().resolve_neg())

    return tree_map(placed, out)
