"""`train-blur`: learns the three classes, labels what it is certain of, learns again, and is calibrated."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ...config.sections import Part, Positive
from ..flow import write_text
from ..options import Blur, Count, Share
from .net import CLASSES, TINY, BlurNet, Calibration, load_trunk, save_blur_net
from .samples import (
    NONE,
    Learned,
    Sample,
    from_folder,
    from_masks,
    from_table,
    learned,
    photos_in,
    shuffled,
    split,
    spoiled,
)

log = logging.getLogger("fine_defocus")

_MAP_STRIDE = 4
_TEMPERATURES = np.geomspace(0.25, 8.0, 41)


class Masked(Part):
    """A public set with masks: CUHK and DUT-DBD (defocus: desirable), CUHK's motion part (undesirable)."""

    photos: str
    masks: str = Field(description="White where blurred; files have the names of the photos.")
    label: str


class Training(Part):
    """The configuration of train-blur."""

    output: str = Field(description="The .safetensors file; the findings are written beside it.")
    folders: dict[str, tuple[str, ...]] = Field(
        default={},
        description="none, desirable, undesirable: folders of photos, such as f/16 and f/1.8 pairs.",
    )
    masked: tuple[Masked, ...] = ()
    tables: tuple[str, ...] = Field((), description="Labels by hand: CSV with path and label.")
    unlabelled: tuple[str, ...] = Field((), description="Folders for self-training.")
    trunk: str | None = Field(None, description="torchvision's weights of ResNeXt-50 32x4d.")
    tiny: bool = Field(False, description="A network of a few thousand weights, to try the machinery.")
    views: Blur = Field(Blur(), description="crop_px and crops, as they will be used.")
    steps: Count = Field(8000, description="Per round.")
    batch: Count = 16
    lr: Positive = 2e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    map_weight: Annotated[float, Field(ge=0)] = Field(0.5, description="Of the blur map's loss.")
    spoiled: Share = Field(0.5, description="Share of the undesirable ones that are spoiled sharp photos.")
    rounds: Annotated[int, Field(ge=0)] = Field(2, description="Of self-training, after the first.")
    certain: Share = Field(0.9, description="Least probability to label a photo by the network itself.")
    held_out: Share = Field(0.2, description="Half to calibrate with, half to test with.")
    precision: Share = Field(0.95, description="Wanted of each kept class; the thresholds follow from it.")
    device: str = "cuda"
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class Findings:
    """Of the held-out test photos: confusion[truth][called], the last column for "not certain"."""

    confusion: list[list[int]]
    precision: dict[str, float | None]
    recall: dict[str, float | None]
    calibration: Calibration
    labelled: int
    pseudo: list[int]


def train(config: Training) -> Findings:
    """Train, calibrate, test; writes weights, findings as JSON and the confusion matrix as PNG."""
    torch.manual_seed(config.seed)
    samples = read_samples(config)
    learn, calibrate, test = split(samples, config.held_out)
    for name, part in (("learn from", learn), ("calibrate with", calibrate), ("test with", test)):
        missing = [c for k, c in enumerate(CLASSES[:2]) if not any(s.label == k for s in part)]
        if missing:
            raise ValueError(f"There are no photos of {', '.join(missing)} to {name}: label more photos.")
    network = BlurNet(TINY if config.tiny else None)
    if config.trunk:
        load_trunk(network, config.trunk)
    network.to(config.device)
    pseudo: list[int] = []
    extra: list[Sample] = []
    for number in range(config.rounds + 1):
        fit(network, [*learn, *extra], config, config.seed + number)
        if number < config.rounds and config.unlabelled:
            extra = certain_ones(network, config)
            pseudo.append(len(extra))
            log.info("round %d: %d photos labelled by the network", number + 1, len(extra))
    calibration = calibrated(*predictions(network, calibrate, config), config.precision)
    found = findings_of(*predictions(network, test, config), calibration, len(samples), pseudo)
    Path(config.output).parent.mkdir(parents=True, exist_ok=True)
    save_blur_net(network.cpu(), calibration, config.output)
    _write(found, Path(config.output))
    return found


def read_samples(config: Training) -> list[Sample]:
    """All labelled photos. Raises ValueError for classes that do not exist."""
    unknown = {*config.folders, *(m.label for m in config.masked)} - set(CLASSES)
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: the classes are {', '.join(CLASSES)}.")
    found = [s for label, folders in config.folders.items() for f in folders for s in from_folder(f, label)]
    found += [s for m in config.masked for s in from_masks(m.photos, m.masks, m.label)]
    return found + [s for table in config.tables for s in from_table(table)]


def fit(network: BlurNet, samples: Sequence[Sample], config: Training, seed: int) -> None:
    """One round: classes in equal shares."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=config.lr,
    )
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    network.train()
    stream = _stream(samples, config, seed)
    for step in range(config.steps):
        batch = [next(stream) for _ in range(config.batch)]
        loss = loss_of(network, batch, config)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        falling.step()
        if step % max(1, config.steps // 10) == 0:
            log.info("step %d of %d: loss %.3f", step, config.steps, loss.item())
    network.eval()


def loss_of(network: BlurNet, batch: Sequence[Learned], config: Training) -> Tensor:
    """Cross entropy of the classes and of the blur maps where they are known."""
    views = torch.stack([one.views for one in batch]).to(config.device).float() / 255.0
    logits, maps = network(views)
    labels = torch.tensor([one.label for one in batch], device=config.device)
    loss = functional.cross_entropy(logits, labels)
    blurred = torch.stack([one.blurred for one in batch]).to(config.device)
    target = functional.avg_pool2d(blurred.flatten(0, 1)[:, None], _MAP_STRIDE)[:, 0].unflatten(
        0, maps.shape[:2]
    )
    known = ~target.isnan()
    if known.any():
        loss = loss + config.map_weight * functional.binary_cross_entropy_with_logits(
            maps[known], target[known]
        )
    return loss


def _stream(samples: Sequence[Sample], config: Training, seed: int) -> Iterator[Learned]:
    random = np.random.default_rng(seed)
    by_label = [[s for s in samples if s.label == k] for k in range(len(CLASSES))]
    orders = [shuffled(len(group), seed + k) if group else None for k, group in enumerate(by_label)]
    sharp = shuffled(len(by_label[NONE]), seed + len(CLASSES))
    while True:
        for label, (group, order) in enumerate(zip(by_label, orders, strict=True)):
            bad = label == len(CLASSES) - 1
            try:
                if bad and (order is None or random.random() < config.spoiled):
                    yield spoiled(by_label[NONE][next(sharp)], config.views, random)
                else:
                    yield learned(group[next(order)], config.views, random)
            except (OSError, SyntaxError, TimeoutError) as error:  # what Pillow raises for damaged pictures
                log.warning("A photo is left out: %s", error)


def predictions(network: BlurNet, samples: Sequence[Sample], config: Training) -> tuple[Tensor, Tensor]:
    """Logits `(n, 3)` and labels `(n,)` of samples, and of a spoiled copy of each sharp one."""
    shown: list[Learned] = []
    for number, sample in enumerate(samples):
        shown.append(learned(sample, config.views))
        if sample.label == NONE:
            shown.append(spoiled(sample, config.views, np.random.default_rng([config.seed, number])))
    logits = []
    with torch.inference_mode():
        for start in range(0, len(shown), config.batch):
            views = torch.stack([one.views for one in shown[start : start + config.batch]])
            logits.append(network(views.to(config.device).float() / 255.0)[0].float().cpu())
    return torch.cat(logits), torch.tensor([one.label for one in shown])


def certain_ones(network: BlurNet, config: Training) -> list[Sample]:
    """Unlabelled photos whose class the network is certain of, with that class."""
    found = []
    for path in (path for folder in config.unlabelled for path in photos_in(folder)):
        try:
            views = learned(Sample(path, NONE), config.views).views
        except (OSError, SyntaxError, TimeoutError):
            continue
        with torch.inference_mode():
            logits = network(views[None].to(config.device).float() / 255.0)[0][0].float()
        best = logits.softmax(-1).max(-1)
        if best.values.item() >= config.certain:
            found.append(Sample(path, int(best.indices)))
    return found


def calibrated(logits: Tensor, labels: Tensor, precision: float) -> Calibration:
    """The temperature with the least cross entropy, and each class's least threshold of this precision.

    A class that reaches it nowhere gets a threshold above 1: no photo is called it.
    """
    costs = [functional.cross_entropy(logits / t, labels).item() for t in _TEMPERATURES]
    temperature = float(_TEMPERATURES[int(np.argmin(costs))])
    best = (logits / temperature).softmax(-1).max(-1)
    thresholds = []
    for label in range(len(CLASSES)):
        called = best.indices == label
        certainty, order = best.values[called].sort(descending=True)
        right = (labels[called][order] == label).double().cumsum(0)
        good = right / torch.arange(1, len(right) + 1) >= precision
        # equal certainties are called together or not at all
        good[:-1] &= certainty[:-1] > certainty[1:]
        last = good.nonzero()
        thresholds.append(float(certainty[last[-1]]) if len(last) else 1.01)
    return Calibration(temperature, tuple(thresholds))


def findings_of(
    logits: Tensor, labels: Tensor, calibration: Calibration, labelled: int, pseudo: list[int]
) -> Findings:
    """How the calibrated network does."""
    confusion = [[0] * (len(CLASSES) + 1) for _ in CLASSES]
    for probabilities, label in zip(calibration.probabilities(logits).tolist(), labels.tolist(), strict=True):
        called = calibration.called(probabilities)
        confusion[label][len(CLASSES) if called is None else CLASSES.index(called)] += 1
    precision, recall = {}, {}
    for k, name in enumerate(CLASSES):
        called, there = sum(row[k] for row in confusion), sum(confusion[k])
        precision[name] = confusion[k][k] / called if called else None
        recall[name] = confusion[k][k] / there if there else None
    return Findings(confusion, precision, recall, calibration, labelled, pseudo)


def _write(found: Findings, output: Path) -> None:
    told: dict[str, Any] = {
        "classes": [*CLASSES, "not certain"],
        "confusion": found.confusion,
        "precision": found.precision,
        "recall": found.recall,
        "temperature": found.calibration.temperature,
        "thresholds": dict(zip(CLASSES, found.calibration.thresholds, strict=True)),
        "labelled": found.labelled,
        "labelled_by_itself": found.pseudo,
    }
    write_text(output.with_suffix(".json"), json.dumps(told, indent=1) + "\n")
    from ..charts import matrix

    picture = matrix("true class and what it is called", CLASSES, [*CLASSES, "not certain"], found.confusion)
    picture.save(output.with_suffix(".png"))
