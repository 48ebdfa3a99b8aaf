"""What a training takes: memory per GPU, time, and disk, before it is started.

GB is 10⁹ bytes, GiB 2³⁰. All is computed for 1024 px with activation checkpointing and gradient relay; none
was measured on a GPU. The section "What a run takes" of REPRODUCE.md has the counts and formulas. A cycle is
one update of the generator and `FAKE_UPDATES` of the fake score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

GB, GIB, DAY_S = 1e9, 2.0**30, 86_400.0
#: Parameters, counted on the networks built on the meta device. depth: Metric3D v2 with ViT-L.
NETWORKS = {
    "unet": 2_567_463_684,
    "unet_down_mid": 1_243_367_040,
    "gan_head": 104_900_000,
    "vst": 83_981_860,
    "vae": 83_653_863,
    "text": 817_700_000,
    "depth": 411_900_000,
    "largest_unit": 350_840_320,
    "lora_per_rank": 3_074_240,
}
#: TFLOP of a forward pass at batch 1; vae: decoder and encoder.
TFLOP = {"unet": 5.98, "unet_down_mid": 2.58, "vae": 9.92 + 4.33, "depth": 2.7 + 1.84}
#: GiB that a sample takes while a checkpointed UNet is computed again, and while the critic's half is kept.
UNET_GIB, CRITIC_GIB = 0.55 + 0.70, 2.91
#: GiB of the decoder, the largest segment of the relay, by precision and unit of checkpointing.
DECODER_GIB = {"fp32": {"block": 13.69, "resnet": 7.69}, "bf16": {"block": 6.84, "resnet": 3.84}}
#: Bytes per trained parameter: in memory (weight, gradient, two moments of Adam), and on disk.
STATE_BYTES, CHECKPOINT_BYTES = 16, 12
#: DMD2's: updates of the fake score for one of the generator, of 0 to 3 steps before the trained one.
FAKE_UPDATES, MEAN_STEPS_BEFORE = 5, 1.5
#: CUDA's context and what the allocator cannot use, assumed; a sample's mean and std in float16.
CONTEXT_GB, LATENT_BYTES = 1.0, 2 * 2 * 4 * 128 * 128


class Machine(NamedTuple):
    """peak_tflops: dense bfloat16 of the data sheet. utilisation, bus_gb_s of gathers: assumed."""

    peak_tflops: float
    utilisation: float
    bus_gb_s: float
    memory_gb: float


MACHINES = {
    "A100": Machine(312.0, 0.30, 170.0, 80.0),
    "H100": Machine(989.0, 0.21, 170.0, 80.0),
    "RTX 4090": Machine(165.0, 0.30, 25.0, 24.0),
}


@dataclass(frozen=True)
class TrainingPlan:
    """A training to estimate; weights are sharded within a node.

    batch: per GPU. vae_unit: what of the autoencoder is computed again at a time. lora_rank: 0 trains all
    weights. pairs: in the data set. Raises ValueError for a choice that does not exist.
    """

    stage: int = 2
    gpus: int = 8
    machine: str = "A100"
    per_node: int = 8
    batch: int = 1
    vae: str = "fp32"
    vae_unit: str = "block"
    lora_rank: int = 0
    pairs: int = 1_500_000

    def __post_init__(self) -> None:
        vaes = {"vae": tuple(DECODER_GIB), "vae_unit": tuple(DECODER_GIB["fp32"])}
        for name, known in {"stage": (1, 2), "machine": tuple(MACHINES), **vaes}.items():
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} is {value!r}: use one of {', '.join(map(str, known))}.")
        for name, least in {"gpus": 1, "per_node": 1, "batch": 1, "pairs": 1, "lora_rank": 0}.items():
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name} is {value} and must be {least} at least.")
        if self.gpus > self.per_node and self.gpus % self.per_node:
            raise ValueError(f"{self.gpus} GPUs do not fill nodes of {self.per_node}.")


class Cost(NamedTuple):
    """What a plan takes: memory per GPU; TFLOP, traffic and times of a cycle per GPU; a checkpoint's disk."""

    memory_gb: dict[str, float]
    tflop: dict[str, float]
    traffic_gb: float
    compute_s: float
    traffic_s: float
    checkpoint_gb: float

    @property
    def total_gb(self) -> float:
        """Memory per GPU."""
        return sum(self.memory_gb.values())

    @property
    def updates(self) -> float:
        """Of the generator in a day; nothing of the traffic is hidden behind arithmetic."""
        return DAY_S / (self.compute_s + self.traffic_s)


def cost(plan: TrainingPlan) -> Cost:
    """By the second table of "What a run takes" in REPRODUCE.md."""
    lens, shards = plan.stage == 2, min(plan.gpus, plan.per_node)
    lora = plan.lora_rank * NETWORKS["lora_per_rank"]
    generator = lora or NETWORKS["unet"]
    fake = generator + NETWORKS["gan_head"]
    trained = generator + fake + lens * NETWORKS["vst"]

    frozen, path = 2 * NETWORKS["text"], UNET_GIB
    if lens:
        frozen += {"fp32": 4, "bf16": 2}[plan.vae] * NETWORKS["vae"]
        frozen += 2 * NETWORKS["depth"] + 4 * NETWORKS["vst"]
        path = DECODER_GIB[plan.vae][plan.vae_unit]
    memory_gb = {
        "state": trained * STATE_BYTES / shards / GB,
        "teacher": 2 * NETWORKS["unet"] / shards / GB,
        "frozen networks": frozen / GB,
        "gather buffers": (shards > 1) * 2 * (2 + 4) * NETWORKS["largest_unit"] / GB,
        "activations": plan.batch * path * GIB / GB,
        "loss networks": plan.batch * (UNET_GIB if lora else CRITIC_GIB) * GIB / GB,
        "context": CONTEXT_GB,
    }

    unet, half, vae, depth = (TFLOP[name] for name in ("unet", "unet_down_mid", "vae", "depth"))
    fake_turn = (MEAN_STEPS_BEFORE + 1 + 4) * unet + 2 * 4 * half + lens * (vae + depth) / 2
    turn = (MEAN_STEPS_BEFORE + 4 + 3) * unet + 3 * half + lens * (unet + 4 * vae + depth) / 2
    tflop = {"fake score": plan.batch * FAKE_UPDATES * fake_turn, "generator": plan.batch * turn}

    whole = FAKE_UPDATES * (MEAN_STEPS_BEFORE + 1 + 2) + MEAN_STEPS_BEFORE + 4 + lens / 2
    gathered = whole * NETWORKS["unet"] + (FAKE_UPDATES * 2 * 2 + 2) * NETWORKS["unet_down_mid"]
    scattered = trained + (FAKE_UPDATES - 1) * fake
    traffic_gb = (shards > 1) * (2 * gathered + 4 * scattered) / GB

    machine = MACHINES[plan.machine]
    compute_s = sum(tflop.values()) / (machine.peak_tflops * machine.utilisation)
    traffic_s = traffic_gb / machine.bus_gb_s
    return Cost(memory_gb, tflop, traffic_gb, compute_s, traffic_s, trained * CHECKPOINT_BYTES / GB)


def report(plan: TrainingPlan) -> str:
    """The estimate as text."""
    machine, takes = MACHINES[plan.machine], cost(plan)
    what = f"LoRA of rank {plan.lora_rank}" if plan.lora_rank else "all weights"
    verdict = "fits" if takes.total_gb <= machine.memory_gb else "does not fit"
    peak = f"s at {machine.utilisation:.0%} of {machine.peak_tflops:.0f} TFLOP/s"
    samples = takes.updates * plan.gpus * plan.batch
    sections = {
        "memory per GPU  GB": [
            *((name, gb, "") for name, gb in takes.memory_gb.items()),
            ("total", takes.total_gb, f"{verdict} in {machine.memory_gb:.0f} GB"),
        ],
        f"cycle: {FAKE_UPDATES} updates of the fake score, 1 of the generator": [
            *((name, value, "TFLOP") for name, value in takes.tflop.items()),
            ("arithmetic", takes.compute_s, peak),
            ("traffic", takes.traffic_s, f"s for {takes.traffic_gb:.0f} GB at {machine.bus_gb_s:.0f} GB/s"),
        ],
        "a day": [
            ("generator updates", takes.updates, ""),
            ("samples", samples, f"{samples / plan.pairs:.1%} of {plan.pairs:,} pairs"),
        ],
        "disk  GB": [
            ("one checkpoint", takes.checkpoint_gb, ""),
            ("latents", plan.pairs * LATENT_BYTES / GB, ""),
        ],
    }
    lines = [f"Stage {plan.stage}, {what}, {plan.gpus} × {plan.machine}, batch {plan.batch} per GPU."]
    lines.append("Computed, not measured.")
    for title, rows in sections.items():
        lines.append(f"\n{title}")
        lines += [f"  {name:<20}{value:>10,.1f}   {unit}".rstrip() for name, value, unit in rows]
    return "\n".join(lines)
