"""What a training takes: memory per GPU, arithmetic per cycle, time, and disk, before it is started.

GB is 10⁹ bytes, GiB 2³⁰. A cycle is one update of the generator and `FAKE_UPDATES` of the fake score. Every
figure is computed; none was measured on a GPU. What was counted on the real networks is in `NETWORKS` and
`ACTIVATIONS`, and what is assumed in `MACHINES` and the constants below it.
"""

from __future__ import annotations

from dataclasses import dataclass

GB, GIB = 1e9, 2.0**30

#: Parameters, counted on the networks built on the meta device. depth_*: Metric3D v2 with ViT-L and ViT-g.
NETWORKS = {
    "unet": 2_567_463_684,
    "unet_down_mid": 1_243_367_040,
    "gan_head": 104_900_000,
    "vst": 83_981_860,
    "vae": 83_653_863,
    "text": 817_700_000,
    "depth_vit_l": 411_900_000,
    "depth_vit_g": 1_377_000_000,
    "largest_unit": 350_840_320,
    "lora_per_rank": 3_074_240,
}


@dataclass(frozen=True)
class Activations:
    """Of one forward pass at batch 1 and 1024². saved_gib: kept for the backward pass; checkpointed_gib: with
    activation checkpointing, and unit_gib on top while one unit is computed again. tflop: of the pass.
    """

    saved_gib: float
    checkpointed_gib: float
    unit_gib: float
    tflop: float


#: Counted with fake tensors and saved-tensor hooks, float operations with torch's counter. The VAE is
#: checkpointed by block, the UNet by Transformer2DModel, the depth network (at 616 × 1064) by layer. Depth is
#: in two rows: up to its first guess, and the eight rounds that refine it, which are not checkpointed here.
ACTIVATIONS = {
    "unet trained": Activations(6.41, 0.55, 0.70, 5.98),
    "unet frozen": Activations(4.97, 0.55, 0.70, 5.98),
    "fake down+mid trained": Activations(2.91, 0.55, 0.70, 2.58),
    "fake down+mid frozen": Activations(2.22, 0.55, 0.70, 2.58),
    "decode fp32": Activations(22.7, 3.19, 10.5, 9.92),
    "decode bf16": Activations(11.4, 1.59, 5.25, 9.92),
    "encode fp32": Activations(11.8, 0.86, 6.5, 4.33),
    "encode bf16": Activations(5.9, 0.43, 3.25, 4.33),
    "depth vit_l": Activations(2.20, 0.82, 0.0, 2.7),
    "depth vit_g": Activations(6.05, 1.06, 0.0, 8.3),
    "depth rounds vit_l": Activations(1.50, 1.50, 0.0, 1.84),
    "depth rounds vit_g": Activations(2.49, 2.49, 0.0, 4.86),
    "lens": Activations(0.15, 0.15, 0.0, 0.0),
}
#: Extra memory where only one resnet of the VAE is computed again at a time.
RESNET_UNIT_GIB = {
    "decode fp32": 4.5,
    "decode bf16": 2.25,
    "encode fp32": 3.0,
    "encode bf16": 1.5,
}


@dataclass(frozen=True)
class Machine:
    """peak_tflops: dense bfloat16 of the data sheet. utilisation: share of it that is reached, assumed.
    bus_gb_s: of gathers and scatters, assumed: 255 GB in the middle of 1 to 2 s. memory_gb: of one GPU.
    """

    peak_tflops: float
    utilisation: float
    bus_gb_s: float
    memory_gb: float


MACHINES = {
    "A100": Machine(312.0, 0.30, 170.0, 80.0),
    # the slow end of 1.3 to 2 s a cycle
    "H100": Machine(989.0, 0.21, 170.0, 80.0),
    "RTX 4090": Machine(165.0, 0.30, 25.0, 24.0),
}

#: DMD2's: five updates of the fake score for one of the generator, of 0 to 3 steps before it.
FAKE_UPDATES = 5
MEAN_STEPS_BEFORE = 1.5
#: Backward pass in forward passes: gradients of inputs and weights, or of inputs alone.
TRAINED, FROZEN = 2.0, 1.0
#: Weight, gradient and the two moments of Adam, bytes per parameter.
ADAM_BYTES = {32: 16.0, 8: 10.0}
#: What a checkpoint keeps of it: weight and moments.
CHECKPOINT_BYTES = {32: 12.0, 8: 6.0}
#: CUDA's context and what the allocator cannot use, GB, assumed.
CONTEXT_GB = 1.0
#: A sample's latent, mean and std in float16, bytes.
LATENT_BYTES = 2 * 2 * 4 * 128 * 128
DAY_S = 86_400.0


@dataclass(frozen=True)
class Plan:
    """A training that is asked about.

    stage: 1 deep pictures, 2 deep and shallow in turn. gpus, per_node: weights are sharded within a node.
    batch: per GPU. vae: "fp32" or "bf16". vae_unit: what of the VAE is computed again at a time, "block" or
    "resnet". checkpointing: of activations. relay: one segment of the graph at a time. depth: "vit_l" or
    "vit_g". depth_gradient: the lens's gradient goes through the depth network too. lora_rank: 0 trains all
    weights. adam_bits: 32 or 8. pairs: in the data set.

    Raises ValueError for a choice that does not exist.
    """

    stage: int = 2
    gpus: int = 8
    machine: str = "A100"
    per_node: int = 8
    batch: int = 1
    vae: str = "fp32"
    vae_unit: str = "block"
    checkpointing: bool = True
    relay: bool = True
    depth: str = "vit_l"
    depth_gradient: bool = False
    lora_rank: int = 0
    adam_bits: int = 32
    pairs: int = 1_500_000

    def __post_init__(self) -> None:
        for name, choices in (
            ("stage", (1, 2)),
            ("machine", tuple(MACHINES)),
            ("vae", ("fp32", "bf16")),
            ("vae_unit", ("block", "resnet")),
            ("depth", ("vit_l", "vit_g")),
            ("adam_bits", tuple(ADAM_BYTES)),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} is {value!r}: use one of {', '.join(map(str, choices))}.")
        for name, least in (("gpus", 1), ("per_node", 1), ("batch", 1), ("pairs", 1), ("lora_rank", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)} and must be {least} at least.")
        if self.gpus > self.per_node and self.gpus % self.per_node:
            raise ValueError(f"{self.gpus} GPUs do not fill nodes of {self.per_node}.")

    @property
    def shards(self) -> int:
        """Over how many GPUs each weight is spread."""
        return min(self.gpus, self.per_node)


@dataclass(frozen=True)
class Estimate:
    """memory_gb: per GPU by what it is for. tflop: of a cycle per GPU by what it is for, batch included.

    compute_s, traffic_s: of a cycle; traffic_gb: what one GPU gathers and scatters in it.
    updates: of the generator in a day; epoch_share: of the data set that they see.
    checkpoint_gb, latents_gb: on disk, of one checkpoint and of the data set.
    """

    plan: Plan
    memory_gb: dict[str, float]
    tflop: dict[str, float]
    compute_s: float
    traffic_s: float
    traffic_gb: float
    updates: float
    samples: float
    epoch_share: float
    checkpoint_gb: float
    latents_gb: float

    @property
    def total_gb(self) -> float:
        """Memory per GPU."""
        return sum(self.memory_gb.values())

    @property
    def cycle_tflop(self) -> float:
        """Arithmetic of a cycle."""
        return sum(self.tflop.values())

    @property
    def fits(self) -> bool:
        """Whether the machine holds it."""
        return self.total_gb <= MACHINES[self.plan.machine].memory_gb


def trainable(plan: Plan) -> dict[str, float]:
    """Parameters that are trained, by network: all of the generator and the fake score with its head, or a
    LoRA on each and the head; from stage 2 on the focus predictor."""
    unet = plan.lora_rank * NETWORKS["lora_per_rank"] if plan.lora_rank else NETWORKS["unet"]
    found = {"generator": unet, "fake score and head": unet + NETWORKS["gan_head"]}
    return found | ({"focus predictor": NETWORKS["vst"]} if plan.stage == 2 else {})


def memory_gb(plan: Plan) -> dict[str, float]:
    """GB per GPU.

    State: 16 B per trained parameter (10 B with 8-bit moments) over the shards. Teacher: 2 B per parameter
    over the shards; with a LoRA one copy of SDXL serves generator, fake score and teacher. Not sharded: text
    encoders and depth network at 2 B, VAE in its precision, the frozen copy of the VST at 4 B. Buffers: two
    of the largest units gathered, 2 B, with their gradients on the way, 4 B. Activations: see
    `activations_gib`; loss: features of the fake score, and its trained pass.
    """
    frozen = 2 * NETWORKS["text"]
    if plan.stage == 2:
        vae_bytes = 4 if plan.vae == "fp32" else 2
        frozen += vae_bytes * NETWORKS["vae"] + 2 * NETWORKS[f"depth_{plan.depth}"] + 4 * NETWORKS["vst"]
    activations, loss = activations_gib(plan)
    return {
        "state": sum(trainable(plan).values()) * ADAM_BYTES[plan.adam_bits] / plan.shards / GB,
        "teacher": 2 * NETWORKS["unet"] / plan.shards / GB,
        "frozen networks": frozen / GB,
        "gather buffers": 0.0 if plan.shards == 1 else 2 * (2 + 4) * NETWORKS["largest_unit"] / GB,
        "activations": plan.batch * activations * GIB / GB,
        "loss networks": plan.batch * loss * GIB / GB,
        "context": CONTEXT_GB,
    }


def activations_gib(plan: Plan) -> tuple[float, float]:
    """GiB at batch 1: of the path from noise to the last latent, and of the networks of the loss.

    The path is generator | VAE decoder | depth and lens | VAE encoder. With the relay it takes what its
    largest segment does, saved + recomputed unit; without it all that is saved + the largest unit. The loss:
    with a LoRA the fake score is checkpointed as well, else its trained down and middle blocks are kept.
    """
    segments = [["unet trained"]]
    if plan.stage == 2:
        seen = [f"depth {plan.depth}", f"depth rounds {plan.depth}"] if plan.depth_gradient else []
        segments += [[f"decode {plan.vae}"], [*seen, "lens"], [f"encode {plan.vae}"]]
    if not plan.relay:
        segments = [[name for segment in segments for name in segment]]
    path = max(_saved_gib(plan, segment) for segment in segments)
    fake = ACTIVATIONS["fake down+mid trained"]
    kept_small = plan.checkpointing and plan.lora_rank
    return path, fake.checkpointed_gib + fake.unit_gib if kept_small else fake.saved_gib


def _saved_gib(plan: Plan, names: list[str]) -> float:
    """All that a stretch of the graph keeps, and the largest unit that is computed again on top."""
    costs = [(name, ACTIVATIONS[name]) for name in names]
    if not plan.checkpointing:
        return sum(cost.saved_gib for _, cost in costs)
    smaller = RESNET_UNIT_GIB if plan.vae_unit == "resnet" else {}
    units = [smaller.get(name, cost.unit_gib) for name, cost in costs]
    return sum(cost.checkpointed_gib for _, cost in costs) + max(units)


def turn_tflop(plan: Plan) -> dict[str, float]:
    """TFLOP at batch 1 of each kind of turn; a trained pass costs 1 + 1 recomputed + 2 backward forwards.

    fake: 2.5 steps without gradient (the 1.5 before and the last), one trained pass, and the discriminator's
    on a generated and a real sample. deep: 1.5 steps without gradient, one trained pass, the fake score once,
    the teacher with CFG twice, the frozen discriminator with input gradient. shallow: those and the VAE,
    depth and lens: forward once on fake turns; on the generator's with input gradients, and with the relay,
    which runs the generator and what follows it once more.
    """
    again = 1.0 if plan.checkpointing else 0.0
    unet, half = ACTIVATIONS["unet trained"].tflop, ACTIVATIONS["fake down+mid trained"].tflop
    depth = sum(ACTIVATIONS[f"{part} {plan.depth}"].tflop for part in ("depth", "depth rounds"))
    vae = sum(ACTIVATIONS[f"{way} {plan.vae}"].tflop for way in ("decode", "encode"))
    fake = (MEAN_STEPS_BEFORE + 1) * unet + (1 + again + TRAINED) * unet + 2 * (1 + again + TRAINED) * half
    deep = MEAN_STEPS_BEFORE * unet + (1 + again + TRAINED) * unet + 3 * unet + (1 + again + FROZEN) * half
    twice = 1.0 if plan.relay else 0.0
    through = twice * unet + (twice + 1 + again + FROZEN) * vae
    through += (twice + 1 + again + FROZEN if plan.depth_gradient else 1.0) * depth
    return {
        "fake": fake,
        "fake shallow": fake + vae + depth,
        "generator deep": deep,
        "generator shallow": deep + through,
    }


def cycle_tflop(plan: Plan) -> dict[str, float]:
    """TFLOP of a cycle per GPU: `FAKE_UPDATES` fake turns and one of the generator; in stage 2 half of each
    are shallow."""
    turn = turn_tflop(plan)
    half = 0.5 if plan.stage == 2 else 0.0
    mixed = {
        "fake score": FAKE_UPDATES * ((1 - half) * turn["fake"] + half * turn["fake shallow"]),
        "generator": (1 - half) * turn["generator deep"] + half * turn["generator shallow"],
    }
    return {name: plan.batch * value for name, value in mixed.items()}


def traffic_gb(plan: Plan) -> float:
    """GB that one GPU gathers and scatters in a cycle, 0 on one GPU.

    A pass without gradient gathers a network once at 2 B per parameter, one with it twice: 2.5 + 2 passes of
    a UNet and 2 · 2 of its down and middle blocks per fake turn, 1.5 + 2 + 1 + 1 and 2 on the generator's.
    With the relay it is one pass more on shallow turns. Gradients are scattered once per update, 4 B per
    trained parameter.
    """
    if plan.shards == 1:
        return 0.0
    whole = FAKE_UPDATES * (MEAN_STEPS_BEFORE + 1 + 2) + MEAN_STEPS_BEFORE + 2 + 1 + 1
    whole += 0.5 if plan.relay and plan.stage == 2 else 0.0
    part = FAKE_UPDATES * 2 * 2 + 2
    trained = trainable(plan)
    scattered = FAKE_UPDATES * trained.pop("fake score and head") + sum(trained.values())
    gathered = whole * NETWORKS["unet"] + part * NETWORKS["unet_down_mid"]
    return (2 * gathered + 4 * scattered) / GB


def day(cycle_s: float, samples_per_update: int, pairs: int) -> tuple[float, float, float]:
    """Updates of the generator in a day, the samples in them, and their share of an epoch."""
    updates = DAY_S / cycle_s
    return updates, updates * samples_per_update, updates * samples_per_update / pairs


def estimate(plan: Plan) -> Estimate:
    """Everything about a plan; time is arithmetic over reached speed, plus traffic that hides nothing."""
    machine = MACHINES[plan.machine]
    tflop, traffic = cycle_tflop(plan), traffic_gb(plan)
    compute_s = sum(tflop.values()) / (machine.peak_tflops * machine.utilisation)
    traffic_s = traffic / machine.bus_gb_s
    updates, samples, share = day(compute_s + traffic_s, plan.gpus * plan.batch, plan.pairs)
    return Estimate(
        plan,
        memory_gb(plan),
        tflop,
        compute_s,
        traffic_s,
        traffic,
        updates,
        samples,
        share,
        sum(trainable(plan).values()) * CHECKPOINT_BYTES[plan.adam_bits] / GB,
        plan.pairs * LATENT_BYTES / GB,
    )


def report(gpus: int, stage: int, **options) -> str:
    """The estimate as text; options: further fields of `Plan`."""
    found = estimate(Plan(stage=stage, gpus=gpus, **options))
    plan, machine = found.plan, MACHINES[found.plan.machine]
    what = f"LoRA of rank {plan.lora_rank}" if plan.lora_rank else "all weights"
    verdict = "fits" if found.fits else "does not fit"
    lines = [
        f"Stage {plan.stage}, {what}, {plan.gpus} × {plan.machine}, batch {plan.batch} per GPU. Computed, "
        "not measured.",
        "",
        "memory per GPU            GB",
        *(f"  {name:<20}{value:>8.1f}" for name, value in found.memory_gb.items()),
        f"  {'total':<20}{found.total_gb:>8.1f}   {verdict} in {machine.memory_gb:.0f} GB",
        "",
        f"cycle: {FAKE_UPDATES} updates of the fake score, 1 of the generator",
        *(f"  {name:<20}{value:>8.0f}   TFLOP" for name, value in found.tflop.items()),
        f"  {'arithmetic':<20}{found.compute_s:>8.1f}   s at {machine.utilisation:.0%} of "
        f"{machine.peak_tflops:.0f} TFLOP/s",
        f"  {'traffic':<20}{found.traffic_s:>8.1f}   s for {found.traffic_gb:.0f} GB at "
        f"{machine.bus_gb_s:.0f} GB/s",
        "",
        "a day",
        f"  {'generator updates':<20}{found.updates:>8,.0f}",
        f"  {'samples':<20}{found.samples:>8,.0f}   {found.epoch_share:.1%} of {plan.pairs:,} pairs",
        "",
        "disk                      GB",
        f"  {'one checkpoint':<20}{found.checkpoint_gb:>8.1f}",
        f"  {'latents':<20}{found.latents_gb:>8.1f}",
    ]
    return "\n".join(lines)
