"""Time and memory of Metric3Dv2 for one picture, with random weights.

    python benchmarks/metric3d.py                      # small, 616², one forward pass on 2 threads
    python benchmarks/metric3d.py --size large --canvas 616 1064 --dtype bfloat16 --device cuda

Weights do not change the time. Nothing is asserted here; the goal for the small size is 6 s and 1.5 GB on
two cores.
"""

from __future__ import annotations

import time

import torch
from measuring import options, resident_mb

from lens_models.depth.metric3d.config import PUBLISHED
from lens_models.depth.metric3d.network import Metric3Dv2


def peak_mb(device: str) -> float:
    """Most memory used so far: of the process on the CPU, of the card on CUDA."""
    return resident_mb("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated() / 2**20


def seconds(network: Metric3Dv2, picture: torch.Tensor) -> float:
    """One estimate, from the picture to metres."""
    start = time.perf_counter()
    with torch.inference_mode():
        depth_m = network.estimate(picture, 1000.0, canvas=tuple(picture.shape[-2:]))
    depth_m.sum().item()  # waits for the device
    return time.perf_counter() - start


def main() -> None:
    arguments = options(
        __doc__,
        size={"default": "small", "choices": PUBLISHED},
        canvas={"default": [616, 616], "nargs": 2, "metavar": ("HEIGHT", "WIDTH")},
        dtype="float32",
        device="cpu",
        threads=2,
        runs=3,
    )
    torch.manual_seed(0)
    started_mb = peak_mb(arguments.device)
    network = Metric3Dv2(PUBLISHED[arguments.size]).eval()
    network = network.to(arguments.device, getattr(torch, arguments.dtype))
    picture = torch.rand(1, 3, *arguments.canvas, device=arguments.device)
    times = [seconds(network, picture) for _ in range(arguments.runs)]
    height, width = arguments.canvas
    print(
        f"Metric3Dv2 {arguments.size}, {width} × {height} px, {arguments.dtype} on {arguments.device}, "
        f"{arguments.threads} threads: first run {times[0]:.2f} s, best of {len(times)} {min(times):.2f} s, "
        f"peak memory {peak_mb(arguments.device):.0f} MB ({started_mb:.0f} MB before the network)"
    )


if __name__ == "__main__":
    main()
