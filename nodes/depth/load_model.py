"""Load Depth Model: a network from this machine, or downloaded when it is chosen."""

from __future__ import annotations

import os
from pathlib import Path

import comfy.model_management as mm
import folder_paths
import torch
from comfy_api.latest import io

from ...lens_models.depth import catalog, estimator
from ..shared.files import stamp
from ..shared.inputs import node_schema
from ..shared.messages import messages_ui
from ..shared.networks import wrapped
from ..shared.progress import on_progress
from ..shared.sockets import DEPTH_MODEL

FOLDER = "geometry_estimation"
#: Folders of other packs in which depth networks may lie already.
OTHER_FOLDERS = ("depth", "depthanything", "depth_anything", "depth_estimation", "transformers")
AUTOMATIC = "automatic"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NAMES = {dtype: name for name, dtype in PRECISIONS.items()}


def _local() -> dict[str, Path]:
    places = [("", Path(path)) for path in folder_paths.get_folder_paths(FOLDER)]
    for name in OTHER_FOLDERS:
        paths, _ = folder_paths.folder_names_and_paths.get(
            name, ([os.path.join(folder_paths.models_dir, name)], None)
        )
        places += [(f"{name}/", Path(path)) for path in paths]
    return catalog.local_models(places)


def _set_precision(network: estimator.DepthNetwork, choice: str, device: torch.device) -> str:
    """Bring the weights to the precision that was chosen, or that ComfyUI would choose; returns its name."""
    if choice != AUTOMATIC:
        network.to(PRECISIONS[choice])
        return choice
    count = sum(parameter.numel() for parameter in network.parameters())
    allowed = estimator.good_precisions(network)
    dtype = mm.unet_dtype(device=device, model_params=count, supported_dtypes=list(allowed))
    dtype = dtype if dtype in allowed else torch.float32
    network.float()
    estimator.half_precision_part(network).to(dtype)
    return NAMES[dtype]


class LoadDepthModelNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusLoadDepthModel",
            display_name="Load Depth Model",
            category="fine defocus/depth",
            description="Loads a network that measures depth in metres: Metric3Dv2, Depth Anything V2 "
            "metric, Depth Pro or ZoeDepth.",
            search_aliases="metric3d, depth anything, depth pro, zoedepth, monocular depth, metric depth",
            inputs=[
                io.Combo.Input("file", catalog.choices(_local())),
                "Metric3Dv2 file or transformers folder in models/geometry_estimation. Entries "
                "with (download) are fetched there when the node runs: ViT-S 150 MB, L 1.65 GB, g2 "
                f"5.5 GB, from huggingface.co/JUGGHM/Metric3D; {catalog.PUBLISHED[0].licence}.",
                io.Combo.Input("precision", [AUTOMATIC, *PRECISIONS], default=AUTOMATIC, advanced=True),
                "Precision of the weights. Automatic is what ComfyUI would choose for the device, and fp32 "
                "on the CPU; parts that decide the distances stay fp32.",
            ],
            outputs=[DEPTH_MODEL.Output("depth_model", tooltip="For Estimate Depth.")],
        )

    @classmethod
    def validate_inputs(cls, file) -> bool | str:
        try:
            catalog.find(file, _local())
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file, **_) -> str:
        try:
            source = catalog.find(file, _local())
        except ValueError:
            return "missing"
        return stamp(source) if isinstance(source, Path) else "missing"

    @classmethod
    def execute(cls, file, precision) -> io.NodeOutput:
        source = catalog.find(file, _local())
        licence = ""
        if isinstance(source, catalog.Published):
            licence = f"; downloaded from {source.repository}: {source.licence}"
            folder = Path(folder_paths.get_folder_paths(FOLDER)[0])
            source = catalog.download(source, folder, check=estimator.load_network, on_progress=on_progress())
        network = estimator.load_network(source).requires_grad_(False)
        device = mm.get_torch_device()
        used = _set_precision(network, precision, device)
        summary = f"{estimator.title(network)}, {used} on {device}{licence}"
        return io.NodeOutput(wrapped(network), ui=messages_ui(cls, summary))
