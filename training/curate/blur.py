"""The fifth stage: none, desirable or undesirable blur. Deep keeps the first, shallow the second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from ..data.packed import file_hash
from .classifier.net import CLASSES, TINY, BlurNet, Calibration, load_blur_net
from .flow import dropped, kept
from .gpu_worker import PictureWorker
from .options import Blur, Curation
from .pixels import views_of
from .rules import DEEP, SHALLOW

#: What each set is made of (Appendix D).
WANTED = {DEEP: "none", SHALLOW: "desirable"}


def load_network(options: Blur) -> tuple[BlurNet, Calibration]:
    """The network that the options name, for use."""
    if options.source == "tiny":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            # thresholds of 0: an untrained network is certain of nothing
            return BlurNet(TINY).eval(), Calibration(thresholds=(0.0, 0.0, 0.0))
    network, calibration = load_blur_net(options.weights or "")
    return network.eval(), calibration


class BlurWorker(PictureWorker):
    """Classifies a unit's photos. blur: the class, or None where the network is not certain enough.

    p_none, p_desirable, p_undesirable: calibrated probabilities; blur_p: that of the set's class.
    """

    columns = (
        ("blur", pa.string()),
        *((f"p_{name}", pa.float64()) for name in CLASSES),
        ("blur_p", pa.float64()),
    )

    def __init__(self, config: Curation):
        super().__init__(config)
        self.network, self.calibration = load_network(config.blur)
        self.network.to(self.device)

    @classmethod
    def extra(cls, config: Curation, **more: Any) -> str:
        """The hash of the weights."""
        if config.blur.source == "tiny":
            return "tiny"
        if not config.blur.weights:
            raise ValueError("blur.weights must be set to a file of train-blur, or blur.skip to true.")
        return file_hash(Path(config.blur.weights))

    def verdicts(self, rows: list[dict[str, Any]], pictures: list[Any]) -> list[dict[str, Any]]:
        options = self.config.blur
        views = torch.stack([views_of(picture, options.crop_px, options.crops) for picture in pictures])
        with torch.inference_mode():
            logits, _ = self.network(views.to(self.device).float() / 255.0)
        probabilities = self.calibration.probabilities(logits).cpu().tolist()
        return [self._verdict(row, own) for row, own in zip(rows, probabilities, strict=True)]

    def _verdict(self, row: dict[str, Any], probabilities: list[float]) -> dict[str, Any]:
        predicted = self.calibration.predict(probabilities)
        wanted = WANTED[row["set"]]
        columns = {f"p_{name}": p for name, p in zip(CLASSES, probabilities, strict=True)}
        columns |= {"blur": predicted, "blur_p": columns[f"p_{wanted}"]}
        if predicted == wanted:
            return kept(row["reason"], **columns)
        if predicted is None:
            return dropped("its blur is not certain", **columns)
        return dropped(f"{row['set']}, and blur: {predicted}", **columns)


run = BlurWorker.run
