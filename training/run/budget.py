"""What a training takes: memory per GPU, time, and disk, before it is started.

GB is 10⁹ bytes, GiB 2³⁰. All is computed for 1024 px with activation checkpointing and gradient relay; none
was measured on a GPU. The section "What a run takes" of REPRODUCE.md has the counts behind the constants. A
cycle is one update of the generator and `FAKE_UPDATES` of the fake score.
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
DECODER_GIB = {
    ("fp32", "block"): 3.19 + 10.5,
    ("fp32", "resnet"): 3.19 + 4.5,
    ("bf16", "block"): 1.59 + 5.25,
    ("bf16", "resnet"): 1.59 + 2.25,
}
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
        choices: dict[str, tuple] = {"stage": (1, 2), "machine": tuple(MACHINES)}
        choices |= {"vae": ("fp32", "bf16"), "vae_unit": ("block", "resnet")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}: use one of {', '.join(map(str, known))}."
                )
        for name, least in {"gpus": 1, "per_node": 1, "batch": 1, "pairs": 1, "lora_rank": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)} and must be {least} at least.")
        if self.gpus > self.per_node and self.gpus % self.per_node:
            raise ValueError(f"{self.gpus} GPUs do not fill nodes of {self.per_node}.")

    @property
    def shards(self) -> int:
        """Over how many GPUs each weight is spread."""
        return min(self.gpus, self.per_node)

    @property
    def trainable(self) -> dict[str, float]:
        """Trained parameters by network; with LoRAs those of the LoRAs."""
        unet = self.lora_rank * NETWORKS["lora_per_rank"] or NETWORKS["unet"]
        found: dict[str, float] = {"generator": unet, "fake": unet + NETWORKS["gan_head"]}
        return found | ({"focus": NETWORKS["vst"]} if self.stage == 2 else {})

    @property
    def memory_gb(self) -> dict[str, float]:
        """Per GPU. Text encoders, autoencoder, depth network and the frozen focus predictor are not sharded.

        Gather buffers: two of the largest units with gradients. Activations: the relay's largest segment.
        """
        frozen, path = 2 * NETWORKS["text"], UNET_GIB
        if self.stage == 2:
            frozen += {"fp32": 4, "bf16": 2}[self.vae] * NETWORKS["vae"]
            frozen += 2 * NETWORKS["depth"] + 4 * NETWORKS["vst"]
            path = DECODER_GIB[self.vae, self.vae_unit]
        return {
            "state": sum(self.trainable.values()) * STATE_BYTES / self.shards / GB,
            "teacher": 2 * NETWORKS["unet"] / self.shards / GB,
            "frozen networks": frozen / GB,
            "gather buffers": 0.0 if self.shards == 1 else 2 * (2 + 4) * NETWORKS["largest_unit"] / GB,
            "activations": self.batch * path * GIB / GB,
            "loss networks": self.batch * (UNET_GIB if self.lora_rank else CRITIC_GIB) * GIB / GB,
            "context": CONTEXT_GB,
        }

    @property
    def tflop(self) -> dict[str, float]:
        """Of a cycle per GPU. A trained pass is four forward ones: itself, again, and twice for gradients.

        Fake turns: steps before, a trained pass, the critic on two samples. Generator's turns: the same, the
        fake score, the teacher with guidance, the frozen critic; in stage 2 every second turn is shallow and
        adds autoencoder and depth network, on the generator's the relay's second forward as well.
        """
        unet, half = TFLOP["unet"], TFLOP["unet_down_mid"]
        fake = (MEAN_STEPS_BEFORE + 1 + 4) * unet + 2 * 4 * half
        generator = (MEAN_STEPS_BEFORE + 4 + 3) * unet + 3 * half
        if self.stage == 2:
            fake += (TFLOP["vae"] + TFLOP["depth"]) / 2
            generator += (unet + 4 * TFLOP["vae"] + TFLOP["depth"]) / 2
        return {"fake score": self.batch * FAKE_UPDATES * fake, "generator": self.batch * generator}

    @property
    def traffic_gb(self) -> float:
        """What one GPU gathers (2 B per parameter and pass, trained ones twice) and scatters in a cycle."""
        if self.shards == 1:
            return 0.0
        whole = FAKE_UPDATES * (MEAN_STEPS_BEFORE + 1 + 2) + MEAN_STEPS_BEFORE + 4 + (self.stage - 1) / 2
        gathered = whole * NETWORKS["unet"] + (FAKE_UPDATES * 2 * 2 + 2) * NETWORKS["unet_down_mid"]
        trained = self.trainable
        scattered = sum(trained.values()) + (FAKE_UPDATES - 1) * trained["fake"]
        return (2 * gathered + 4 * scattered) / GB

    @property
    def compute_s(self) -> float:
        """Arithmetic of a cycle, s."""
        machine = MACHINES[self.machine]
        return sum(self.tflop.values()) / (machine.peak_tflops * machine.utilisation)

    @property
    def traffic_s(self) -> float:
        """Traffic of a cycle, s; nothing of it is hidden behind arithmetic."""
        return self.traffic_gb / MACHINES[self.machine].bus_gb_s

    @property
    def updates(self) -> float:
        """Of the generator in a day."""
        return DAY_S / (self.compute_s + self.traffic_s)

    @property
    def total_gb(self) -> float:
        """Memory per GPU."""
        return sum(self.memory_gb.values())

    @property
    def checkpoint_gb(self) -> float:
        """Of one checkpoint on disk."""
        return sum(self.trainable.values()) * CHECKPOINT_BYTES / GB


def report(plan: TrainingPlan) -> str:
    """The estimate as text."""
    machine = MACHINES[plan.machine]
    what = f"LoRA of rank {plan.lora_rank}" if plan.lora_rank else "all weights"
    verdict = "fits" if plan.total_gb <= machine.memory_gb else "does not fit"
    samples = plan.updates * plan.gpus * plan.batch
    rows = [
        ("memory per GPU", None, "GB"),
        *((name, value, "") for name, value in plan.memory_gb.items()),
        ("total", plan.total_gb, f"{verdict} in {machine.memory_gb:.0f} GB"),
        (f"cycle: {FAKE_UPDATES} updates of the fake score, 1 of the generator", None, ""),
        *((name, value, "TFLOP") for name, value in plan.tflop.items()),
        (
            "arithmetic",
            plan.compute_s,
            f"s at {machine.utilisation:.0%} of {machine.peak_tflops:.0f} TFLOP/s",
        ),
        ("traffic", plan.traffic_s, f"s for {plan.traffic_gb:.0f} GB at {machine.bus_gb_s:.0f} GB/s"),
        ("a day", None, ""),
        ("generator updates", plan.updates, ""),
        ("samples", samples, f"{samples / plan.pairs:.1%} of {plan.pairs:,} pairs"),
        ("disk", None, "GB"),
        ("one checkpoint", plan.checkpoint_gb, ""),
        ("latents", plan.pairs * LATENT_BYTES / GB, ""),
    ]
    lines = [f"Stage {plan.stage}, {what}, {plan.gpus} × {plan.machine}, batch {plan.batch} per GPU."]
    lines += ["Computed, not measured."]
    for name, value, unit in rows:
        lines.append(f"\n{name}  {unit}" if value is None else f"  {name:<20}{value:>10,.1f}   {unit}")
    return "\n".join(line.rstrip() for line in lines)
