"""Common alternatives against this pack's engines: time and error on one machine, in one run.

    python benchmarks/peers.py                   # 1024², R = 8 and 32, two threads
    python benchmarks/peers.py --sizes 2048 --radii 64 --threads 4

Alternatives: five Gaussian blurs of the whole picture blended by radius, as depth-blur nodes do with OpenCV;
a disc per level, by FFT and by kornia's filter2d, blended in the same way. The error is the largest
difference from the float64 definition, of the picture's maximum; that of a Gaussian is a difference in shape.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measuring import Definition, best_of, options
from scenes import textured
from torch import Tensor

from lens_models import blur, disc

#: Shares of the largest radius at which the alternatives blur the whole picture; the sharp one is added.
LEVELS = (0.25, 0.5, 0.75, 1.0)


def by_gaussian(image: Tensor, radius_px: float) -> Tensor:
    """OpenCV's GaussianBlur with the disc's second moment, sigma = r / 2."""
    import cv2

    pixels = image[0].permute(1, 2, 0).contiguous().numpy()
    blurred = cv2.GaussianBlur(pixels, (0, 0), radius_px / 2, borderType=cv2.BORDER_REPLICATE)
    return torch.from_numpy(blurred).permute(2, 0, 1)[None]


def by_fft(image: Tensor, radius_px: float) -> Tensor:
    """A disc, by FFT."""
    kernel = torch.from_numpy(disc.disc_kernel(radius_px)).float()
    reach = kernel.shape[0] // 2
    padded = F.pad(image, (reach,) * 4, mode="replicate")
    size = padded.shape[-2:]
    whole = torch.fft.irfft2(torch.fft.rfft2(padded) * torch.fft.rfft2(kernel, s=size), s=size)
    return whole[..., 2 * reach :, 2 * reach :]


def by_kornia(image: Tensor, radius_px: float) -> Tensor:
    """A disc, by kornia's filter2d."""
    from kornia.filters import filter2d

    kernel = torch.from_numpy(disc.disc_kernel(radius_px)).float()
    return filter2d(image, kernel[None], border_type="replicate")


def blended(image: Tensor, radius: Tensor, whole: Callable[[Tensor, float], Tensor]) -> Tensor:
    """Between the two nearest of evenly spaced blurs of the whole picture, pixel by pixel."""
    largest = radius.max().item()
    pictures = torch.stack([image, *(whole(image, share * largest) for share in LEVELS)])[:, 0]
    place = radius / largest * len(LEVELS)
    low = place.floor().clamp(0, len(LEVELS) - 1).long()
    mix = (place - low)[:, None]
    index = low[:, None].expand(-1, image.shape[1], -1, -1)
    return pictures.gather(0, index) * (1 - mix) + pictures.gather(0, index + 1) * mix


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ours, stack": lambda image, radius: blur.gather(image, radius, engine="stack"),
    "ours, cpu": lambda image, radius: blur.gather(image, radius, engine="cpu"),
    "OpenCV, five Gaussians": lambda image, radius: blended(image, radius, by_gaussian),
    "FFT per level, five discs": lambda image, radius: blended(image, radius, by_fft),
    "kornia per level, five discs": lambda image, radius: blended(image, radius, by_kornia),
}


def main() -> None:
    arguments = options(__doc__, radii=[8.0, 32.0], sizes=[1024], threads=2, runs=5)
    try:
        import cv2

        cv2.setNumThreads(arguments.threads)
    except ImportError:
        WAYS.pop("OpenCV, five Gaussians")

    print(f"{arguments.threads} threads, best of {arguments.runs}")
    for size in arguments.sizes:
        for radius_px in arguments.radii:
            image, radius = textured(size, radius_px)
            definition = Definition(image, radius)
            for name, way in WAYS.items():
                start = time.perf_counter()
                try:
                    blurred = way(image, radius)
                except (ImportError, ValueError) as error:
                    print(f"{size}² R={radius_px:g}: {name}: not run ({error})")
                    continue
                runs = 1 if time.perf_counter() - start > 5.0 else arguments.runs
                seconds = best_of(runs, lambda: way(image, radius))  # noqa: B023
                error = definition.error(blurred)
                print(f"{size}² R={radius_px:g}: {name:<28} {seconds:8.3f} s   error {error:.1e}", flush=True)


if __name__ == "__main__":
    main()
