"""`train-blur`: learns the three classes, labels what it is certain of, learns again, and is calibrated."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ...config.sections import Part, Positive, Weight
from ..charts import confusion_matrix
from ..flow import write_text
from ..options import Blur, Count, Share
from .labels import read_labels
from .net import CLASSES, TINY, BlurNet, Calibration, load_trunk, save_blur_net
from .samples import NONE, Example, Sample, degraded, example, from_folder, from_masks, list_photos, split

log = logging.getLogger("fine_defocus")

_MAP_STRIDE = 4
_TEMPERATURES = np.geomspace(0.25, 8.0, 41)


class Masked(Part):
    """A public set with masks: CUHK and DUT-DBD (defocus: desirable), CUHK's motion part (undesirable)."""

    photos: str
    masks: str  # white where blurred; files have the names of the photos
    label: str


class Training(Part):
    """The configuration of train-blur."""

    output: str  # the .safetensors file; the findings are written beside it
    #: none, desirable, undesirable: folders of photos, such as f/16 and f/1.8 pairs.
    folders: dict[str, tuple[str, ...]] = Field({})
    masked: tuple[Masked, ...] = ()
    #: Labels by hand: CSV with path and label, or exports of Label Studio (CSV, JSON).
    tables: tuple[str, ...] = ()
    photos: str | None = None  # folder with the photos of the tables; not given, the folder of each table
    unlabelled: tuple[str, ...] = ()  # folders for self-training
    trunk: str | None = None  # torchvision's weights of ResNeXt-50 32x4d
    tiny: bool = False  # a network of a few thousand weights, to try the machinery
    views: Blur = Blur()  # crop_px and crops, as they will be used
    steps: Count = 8000  # per round
    batch: Count = 16
    lr: Positive = 2e-4
    weight_decay: Weight = 0.05
    map_weight: Weight = 0.5  # of the blur map's loss
    degraded: Share = 0.5  # of the undesirable ones: sharp photos, degraded by shake or defocus
    rounds: Annotated[int, Field(ge=0)] = 2  # of self-training, after the first
    certain: Share = 0.9  # least probability to label a photo by the network itself
    held_out: Share = 0.2  # half to calibrate with, half to test with
    precision: Share = 0.95  # wanted of each kept class; the thresholds follow from it
    device: str = "cuda"
    seed: Annotated[int, Field(ge=0)] = 0


def train(config: Training) -> dict[str, Any]:
    """Train, calibrate, test; writes weights, findings as JSON and the confusion matrix as PNG.

    Returns the findings, those of `evaluate` on the held-out test photos among them.
    """
    torch.manual_seed(config.seed)
    samples = read_samples(config)
    training, calibration_set, test_set = split(samples, config.held_out)
    parts = {"learn from": training, "calibrate with": calibration_set, "test with": test_set}
    for name, part in parts.items():
        missing = [c for k, c in enumerate(CLASSES[:2]) if not any(s.label == k for s in part)]
        if missing:
            raise ValueError(f"There are no photos of {', '.join(missing)} to {name}: label more photos.")
    network = BlurNet(TINY if config.tiny else None)
    if config.trunk:
        load_trunk(network, config.trunk)
    network.to(config.device)
    pseudo: list[int] = []
    confident: list[Sample] = []
    for number in range(config.rounds + 1):
        fit(network, [*training, *confident], config, config.seed + number)
        if number < config.rounds and config.unlabelled:
            confident = confident_samples(network, config)
            pseudo.append(len(confident))
            log.info("round %d: %d photos labelled by the network", number + 1, len(confident))
    calibration = calibrate(*predictions(network, calibration_set, config), config.precision)
    findings = {
        **evaluate(*predictions(network, test_set, config), calibration),
        "temperature": calibration.temperature,
        "thresholds": dict(zip(CLASSES, calibration.thresholds, strict=True)),
        "labelled": len(samples),
        "labelled_by_itself": pseudo,
    }
    output = Path(config.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_blur_net(network.cpu(), calibration, output)
    write_text(output.with_suffix(".json"), json.dumps(findings, indent=1) + "\n")
    try:
        title = "Actual class (rows) and predicted class"
        chart = confusion_matrix(title, CLASSES, findings["classes"], findings["confusion"])
        chart.savefig(output.with_suffix(".png"))
    except ImportError as error:
        log.warning("There is no picture of the confusion matrix. %s", error)
    return findings


def read_samples(config: Training) -> list[Sample]:
    """All labelled photos. Raises ValueError for classes that do not exist."""
    unknown = {*config.folders, *(m.label for m in config.masked)} - set(CLASSES)
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: the classes are {', '.join(CLASSES)}.")
    samples = [s for label, folders in config.folders.items() for f in folders for s in from_folder(f, label)]
    samples += [s for m in config.masked for s in from_masks(m.photos, m.masks, m.label)]
    labels = read_labels(config.tables, config.photos) if config.tables else {}
    return samples + [Sample(path, CLASSES.index(label)) for path, label in labels.items()]


def fit(network: BlurNet, samples: Sequence[Sample], config: Training, seed: int) -> None:
    """One round: classes in equal shares."""
    groups = [
        {"params": [p for p in network.parameters() if (p.ndim > 1) == decayed], "weight_decay": decay}
        for decayed, decay in ((True, config.weight_decay), (False, 0.0))
    ]
    optimiser = torch.optim.AdamW(groups, lr=config.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    network.train()
    stream = _stream(samples, config, seed)
    for step in range(config.steps):
        batch = [next(stream) for _ in range(config.batch)]
        loss = loss_of(network, batch, config)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % max(1, config.steps // 10) == 0:
            log.info("step %d of %d: loss %.3f", step, config.steps, loss.item())
    network.eval()


def loss_of(network: BlurNet, batch: Sequence[Example], config: Training) -> Tensor:
    """Cross entropy of the classes and of the blur maps where they are known."""
    views = torch.stack([one.views for one in batch]).to(config.device).float() / 255.0
    logits, maps = network(views)
    labels = torch.tensor([one.label for one in batch], device=config.device)
    loss = functional.cross_entropy(logits, labels)
    blurred = torch.stack([one.blurred for one in batch]).to(config.device)
    target = functional.avg_pool2d(blurred, _MAP_STRIDE)
    known = ~target.isnan()
    if not known.any():
        return loss
    of_maps = functional.binary_cross_entropy_with_logits(maps[known], target[known])
    return loss + config.map_weight * of_maps


def _stream(samples: Sequence[Sample], config: Training, seed: int) -> Iterator[Example]:
    random = np.random.default_rng(seed)
    by_label = [[s for s in samples if s.label == k] for k in range(len(CLASSES))]
    orders = [_shuffled(len(group), seed + k) if group else None for k, group in enumerate(by_label)]
    sharp = _shuffled(len(by_label[NONE]), seed + len(CLASSES))
    while True:
        for label, (group, order) in enumerate(zip(by_label, orders, strict=True)):
            undesirable = label == len(CLASSES) - 1
            try:
                if order is None or (undesirable and random.random() < config.degraded):
                    yield degraded(by_label[NONE][next(sharp)], config.views, random)
                else:
                    yield example(group[next(order)], config.views, random)
            except (OSError, SyntaxError, TimeoutError) as error:  # what Pillow raises for damaged pictures
                log.warning("A photo is left out: %s", error)


def _shuffled(count: int, seed: int) -> Iterator[int]:
    """0..count−1 in ever new orders."""
    random = np.random.default_rng(seed)
    while True:
        yield from random.permutation(count).tolist()


def predictions(network: BlurNet, samples: Sequence[Sample], config: Training) -> tuple[Tensor, Tensor]:
    """Logits `(n, 3)` and labels `(n,)` of samples, and of a degraded copy of each sharp one."""
    examples: list[Example] = []
    for number, sample in enumerate(samples):
        examples.append(example(sample, config.views))
        if sample.label == NONE:
            random = np.random.default_rng([config.seed, number])
            examples.append(degraded(sample, config.views, random))
    batches = (examples[start : start + config.batch] for start in range(0, len(examples), config.batch))
    logits = [_logits(network, torch.stack([one.views for one in batch]), config) for batch in batches]
    return torch.cat(logits), torch.tensor([one.label for one in examples])


def _logits(network: BlurNet, views: Tensor, config: Training) -> Tensor:
    with torch.inference_mode():
        return network(views.to(config.device).float() / 255.0)[0].float().cpu()


def confident_samples(network: BlurNet, config: Training) -> list[Sample]:
    """Unlabelled photos whose class the network is certain of, with that class."""
    samples = []
    for path in (path for folder in config.unlabelled for path in list_photos(folder)):
        try:
            views = example(Sample(path, NONE), config.views).views
        except (OSError, SyntaxError, TimeoutError):
            continue
        best = _logits(network, views[None], config)[0].softmax(-1).max(-1)
        if best.values.item() >= config.certain:
            samples.append(Sample(path, int(best.indices)))
    return samples


def calibrate(logits: Tensor, labels: Tensor, precision: float) -> Calibration:
    """The temperature with the least cross entropy, and each class's least threshold of this precision.

    A class that reaches it nowhere gets a threshold above 1: no photo is given it.
    """
    costs = [functional.cross_entropy(logits / t, labels).item() for t in _TEMPERATURES]
    temperature = float(_TEMPERATURES[int(np.argmin(costs))])
    best = (logits / temperature).softmax(-1).max(-1)
    thresholds = []
    for label in range(len(CLASSES)):
        predicted = best.indices == label
        certainty, order = best.values[predicted].sort(descending=True)
        right = (labels[predicted][order] == label).double().cumsum(0)
        good = right / torch.arange(1, len(right) + 1) >= precision
        # equal certainties get the class together or not at all
        good[:-1] &= certainty[:-1] > certainty[1:]
        last = good.nonzero()
        thresholds.append(float(certainty[last[-1]]) if len(last) else 1.01)
    return Calibration(temperature, tuple(thresholds))


def evaluate(logits: Tensor, labels: Tensor, calibration: Calibration) -> dict[str, Any]:
    """How the calibrated network does: confusion[truth][predicted], whose last column is "not certain"."""
    columns = [*CLASSES, "not certain"]
    confusion = [[0] * len(columns) for _ in CLASSES]
    for probabilities, label in zip(calibration.probabilities(logits).tolist(), labels.tolist(), strict=True):
        confusion[label][columns.index(calibration.predict(probabilities) or "not certain")] += 1
    precision, recall = {}, {}
    for k, name in enumerate(CLASSES):
        predicted, actual = sum(row[k] for row in confusion), sum(confusion[k])
        precision[name] = confusion[k][k] / predicted if predicted else None
        recall[name] = confusion[k][k] / actual if actual else None
    return {"classes": columns, "confusion": confusion, "precision": precision, "recall": recall}
