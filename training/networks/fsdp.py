"""FSDP2: the mesh, the units each network is cut into, their precision, and what must happen before a step.

A sharded module is only ever called as its root (`module(...)`), never through a child: the root's hooks
gather the weights. Everything trainable is sharded, so that one norm can be taken over all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from ..config.run import Config
from .models import Networks, Prompt

#: Diffusers' layers that are gathered one at a time: at most 351 M parameters of SDXL each, where its blocks
#: hold up to 1.2 billion.
UNITS = ("Transformer2DModel", "ResnetBlock2D")


def device_mesh(device: torch.device | str, per_node: int | None = None) -> DeviceMesh:
    """The ranks as a mesh: sharded within a node and, when there are several, repeated over the nodes (HSDP).

    device: what the ranks compute on. per_node: ranks of a node, torchrun's `LOCAL_WORLD_SIZE` unless given.
    Raises ValueError when the nodes do not hold the same number of ranks.
    """
    kind, world = torch.device(device).type, dist.get_world_size()
    per_node = per_node or int(os.environ.get("LOCAL_WORLD_SIZE", world))
    if world % per_node:
        raise ValueError(
            f"{world} processes do not divide into nodes of {per_node}. Start the same number on every node."
        )
    if world == per_node:
        return init_device_mesh(kind, (world,), mesh_dim_names=("shard",))
    return init_device_mesh(kind, (world // per_node, per_node), mesh_dim_names=("replicate", "shard"))


def units(module: nn.Module) -> list[nn.Module]:
    """The layers of a network that become units of their own."""
    return [layer for layer in module.modules() if type(layer).__name__ in UNITS]


def shard(
    module: nn.Module,
    mesh: DeviceMesh,
    *,
    dtype: torch.dtype = torch.float32,
    exact: Iterable[nn.Module] = (),
) -> nn.Module:
    """Spread a network's weights, gradients and optimiser state over the mesh, in place.

    The weights stay as they are and are gathered as `dtype`; gradients are reduced in float32 or better.
    Inputs are not cast: picture sizes above 256 would lose their last digits in bfloat16. A caller casts
    what should be. exact: parts that compute as they are stored whatever `dtype` is, each a unit of its own.
    `Networks.warm_up` must run before anything of the module is frozen.
    """
    reduced = torch.promote_types(dtype, torch.float32)
    lower = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=reduced, cast_forward_inputs=False)
    exact = list(exact)
    inside = {layer for part in exact for layer in part.modules()}
    for part in exact:
        fully_shard(part, mesh=mesh, mp_policy=MixedPrecisionPolicy())
    for layer in (*(layer for layer in units(module) if layer not in inside), module):
        fully_shard(layer, mesh=mesh, mp_policy=lower)
    return module


def shard_networks(networks: Networks, config: Config, mesh: DeviceMesh, prompt: Prompt) -> Networks:
    """Shard generator, teacher, fake score and focus predictor, in place, and warm them up.

    The critic's heads and the focus predictor compute in float32 whatever the precision. Autoencoder, depth
    network and the frozen predictor stay whole on every rank.
    prompt: any encoded one, of the sizes that the run has; the warm-up reads it.
    """
    dtype = networks.dtype
    networks.autocast = False  # sharding casts the weights, so nothing else does
    for fake in networks.fake:
        shard(fake, mesh, dtype=dtype, exact=fake.heads)
    shard(networks.generator, mesh, dtype=dtype)
    shard(networks.teacher, mesh, dtype=dtype)
    if networks.focus is not None:
        shard(networks.focus, mesh, dtype=networks.exact)
    networks.warm_up(config, prompt)
    for network in networks.trainable(config).values():
        reshard(network)  # an optimiser must be given the shards
    return networks


def reshard(module: nn.Module) -> None:
    """Give back what is gathered of a sharded network; nothing to do for a whole one.

    Its root is still gathered after a forward that no backward followed, and its parameters are not the
    shards meanwhile: an optimiser made then would train copies, and a checkpoint would not find its own.
    """
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def clip(parameters: Iterable[Tensor], limit: float) -> float:
    """Scale gradients to a norm of at most `limit`; the norm before, the same number on every rank."""
    norm = nn.utils.clip_grad_norm_(list(parameters), limit)
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()


def mean_over_ranks(values: Tensor) -> Tensor:
    """Mean of a tensor over the ranks; the tensor itself in a process of its own."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
