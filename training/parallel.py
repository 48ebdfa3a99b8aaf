"""The networks of a run spread over the ranks: FSDP2 around what is large or trained."""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh

from .config.run import Config
from .networks import fsdp as shard
from .networks.models import Networks, Prompt


def spread(networks: Networks, config: Config, mesh: DeviceMesh, prompt: Prompt) -> Networks:
    """Shard generator, teacher, fake score and focus predictor, in place, and warm them up.

    The critic's heads and the focus predictor compute in float32 whatever the precision. Autoencoder, depth
    network and the frozen predictor stay whole on every rank.
    prompt: any encoded one, of the sizes that the run has; the warm-up reads it.
    """
    dtype = networks.dtype
    networks.autocast = False  # sharding casts the weights, so nothing else does
    for fake in networks.fake:
        shard.shard(fake, mesh, dtype=dtype, exact=fake.heads)
    shard.shard(networks.generator, mesh, dtype=dtype)
    shard.shard(networks.teacher, mesh, dtype=dtype)
    if networks.focus is not None:
        shard.shard(networks.focus, mesh, dtype=networks.exact)
    shard.warm_up(*networks.warm_ups(config, prompt))
    for network in networks.trainable(config).values():
        shard.reshard(network)  # an optimiser must be given the shards
    return networks
