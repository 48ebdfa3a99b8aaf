"""What one would run without this pack, beside its engines: time and error on one machine, in one run.

    python benchmarks/peers.py                   # 1024², R = 8 and 32, two threads
    python benchmarks/peers.py --sizes 2048 --radii 64 --threads 4

Peers: five Gaussian blurs of the whole picture blended by radius, as depth-blur nodes do with OpenCV; a disc
per level over the whole picture, by FFT and by kornia's filter2d, blended in the same way. The error is the
largest difference from the float64 definition, of the picture's maximum; Gaussians are no discs, so theirs
says how different the picture is and not how exact they are.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from blur import scene
from measuring import best_of, definition, definition_error
from torch import Tensor

from lens_models import blur, disc

#: Pictures that the peers blend between.
LEVELS = 5


def blended(image: Tensor, radius: Tensor, stack: list[Tensor]) -> Tensor:
    """Between the two nearest of evenly spaced blurred pictures, pixel by pixel."""
    place = radius / radius.max() * (len(stack) - 1)
    low = place.floor().clamp(0, len(stack) - 2).long()
    mix = (place - low)[:, None]
    pictures = torch.stack(stack)[:, 0]
    index = low[:, None].expand(-1, image.shape[1], -1, -1)
    return pictures.gather(0, index) * (1 - mix) + pictures.gather(0, index + 1) * mix


def by_gaussians(image: Tensor, radius: Tensor) -> Tensor:
    """OpenCV's GaussianBlur with the disc's second moment, sigma = r / 2."""
    import cv2

    pixels = image[0].permute(1, 2, 0).contiguous().numpy()
    stack = [image]
    for k in range(1, LEVELS):
        sigma = float(radius.max()) * k / (LEVELS - 1) / 2
        made = cv2.GaussianBlur(pixels, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        stack.append(torch.from_numpy(made).permute(2, 0, 1)[None])
    return blended(image, radius, stack)


def by_fft(image: Tensor, radius: Tensor) -> Tensor:
    """A disc per level over the whole picture, by FFT."""
    stack = [image]
    for k in range(1, LEVELS):
        kernel = torch.from_numpy(disc.disc_kernel(float(radius.max()) * k / (LEVELS - 1))).float()
        reach = kernel.shape[0] // 2
        padded = torch.nn.functional.pad(image, (reach,) * 4, mode="replicate")
        size = padded.shape[-2:]
        whole = torch.fft.irfft2(torch.fft.rfft2(padded) * torch.fft.rfft2(kernel, s=size), s=size)
        stack.append(whole[..., 2 * reach :, 2 * reach :])
    return blended(image, radius, stack)


def by_kornia(image: Tensor, radius: Tensor) -> Tensor:
    """A disc per level over the whole picture, by kornia's filter2d."""
    from kornia.filters import filter2d

    stack = [image]
    for k in range(1, LEVELS):
        kernel = torch.from_numpy(disc.disc_kernel(float(radius.max()) * k / (LEVELS - 1))).float()
        stack.append(filter2d(image, kernel[None], border_type="replicate"))
    return blended(image, radius, stack)


PEERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "OpenCV, five Gaussians": by_gaussians,
    "FFT per level, five discs": by_fft,
    "kornia per level, five discs": by_kornia,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--radii", type=float, nargs="+", default=[8, 32])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        import cv2

        cv2.setNumThreads(arguments.threads)
    except ImportError:
        PEERS.pop("OpenCV, five Gaussians")

    print(f"{arguments.threads} threads, best of {arguments.runs}")
    for size in arguments.sizes:
        for radius_px in arguments.radii:
            image, radius = scene(size, radius_px)
            rows = slice(size // 8, size // 8 + 16)
            exact = definition(image, radius, rows)
            ways = {
                **{f"ours, {e}": lambda i, r, e=e: blur.gather(i, r, engine=e) for e in ("stack", "cpu")},
                **PEERS,
            }
            for name, way in ways.items():
                start = time.perf_counter()
                try:
                    made = way(image, radius)
                except (ImportError, ValueError) as error:
                    print(f"{size}² R={radius_px:g}: {name}: not run ({error})")
                    continue
                slow = time.perf_counter() - start > 5.0
                seconds = best_of(1 if slow else arguments.runs, lambda: way(image, radius))  # noqa: B023
                error = definition_error(made, image, rows, exact)
                print(f"{size}² R={radius_px:g}: {name:<28} {seconds:8.3f} s   error {error:.1e}", flush=True)


if __name__ == "__main__":
    main()
