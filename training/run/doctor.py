"""Whether this machine can train: every answer is a sentence, and those that are not good say what to do."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from lens_models.weights import read_metadata

from .budget import GB, TrainingPlan, cost

#: What a run imports, and the name it is installed by where that is another.
PACKAGES = ("diffusers", "transformers", "tqdm", "safetensors", "pyarrow", "yaml", "pydantic")
INSTALLED_BY = {"yaml": "pyyaml"}
#: The newest, the one being written, and one to go back to.
CHECKPOINTS_KEPT = 3
_PATIENCE_S = 180

_COLLECTIVE = """
import torch, torch.distributed as dist
dist.init_process_group("{backend}", store=dist.HashStore(), rank=0, world_size=1)
one = torch.ones(1, device="{device}")
dist.all_reduce(one)
assert one.item() == 1
dist.destroy_process_group()
"""


class Finding(NamedTuple):
    """One answer. ok: nothing to do. message: a sentence."""

    ok: bool
    message: str


def examine(
    folder: str | Path = ".",
    *,
    weights: Iterable[str | Path] = (),
    device: str = "cuda",
    stage: int = 2,
    needed_gb: float | None = None,
) -> list[Finding]:
    """Look at everything a run needs.

    folder: where checkpoints go. weights: files that the run's configuration names. device: "cuda", or "cpu"
    for the small configurations of the tests. needed_gb: free disk; for "cuda" three checkpoints of the
    stage when not given.
    """
    cuda = device == "cuda"
    if needed_gb is None:
        needed_gb = CHECKPOINTS_KEPT * cost(TrainingPlan(stage=stage)).checkpoint_gb if cuda else 1.0
    return [
        accelerators(device, stage),
        bfloat16(device),
        sharding(),
        collectives("gloo", "cpu"),
        *([collectives("nccl", "cuda")] if cuda else []),
        torchvision(),
        *(package(module, INSTALLED_BY.get(module, module)) for module in PACKAGES),
        free_disk(folder, needed_gb),
        *(weights_file(path) for path in weights),
    ]


def accelerators(device: str, stage: int) -> Finding:
    """GPUs, and whether the stage's memory is in them; nothing is asked of the CPU."""
    if device == "cpu":
        return Finding(True, f"{_TORCH} on the CPU: for small configurations only.")
    sizes = gpu_memory_gb()
    if not sizes:
        remedy = "install a CUDA build of torch, or look with the CPU as device for the small configurations"
        return _finding(False, f"{_TORCH} sees no GPU", remedy)
    needed = cost(TrainingPlan(stage=stage, gpus=len(sizes), per_node=len(sizes))).total_gb
    count = "1 GPU" if len(sizes) == 1 else f"{len(sizes)} GPUs"
    message = f"{count}, {min(sizes):.0f} GB the smallest; stage {stage} takes about {needed:.0f} GB on each"
    return _finding(needed <= min(sizes), message, "use more GPUs or LoRAs (lora_rank)")


def gpu_memory_gb() -> list[float]:
    """Memory of every GPU that torch sees, GB."""
    return [torch.cuda.get_device_properties(i).total_memory / GB for i in range(torch.cuda.device_count())]


def bfloat16(device: str) -> Finding:
    """Whether a product of bfloat16 matrices can be computed."""
    try:
        matrix = torch.ones(8, 8, dtype=torch.bfloat16, device=device)
        right = (matrix @ matrix).float().eq(8).all().item()
        # older GPUs compute it slowly, by other means
        right = right and (device != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False))
    except (RuntimeError, AssertionError, TypeError) as error:
        return Finding(False, f"bfloat16 cannot be used on {device} ({_last_line(str(error))}).")
    if not right:
        return Finding(False, f"This {device} has no bfloat16: use a GPU of 2020 or later.")
    return Finding(True, f"bfloat16 works on {device}.")


def sharding() -> Finding:
    """Whether this torch spreads a network over GPUs (FSDP2)."""
    try:
        from torch.distributed.fsdp import fully_shard  # noqa: F401
    except ImportError:
        return Finding(False, f"{_TORCH} has no fully_shard: install torch 2.6 or later.")
    return Finding(True, f"{_TORCH} has fully_shard.")


def collectives(backend: str, device: str) -> Finding:
    """Whether a group of one process can add up a number, in a process of its own."""
    if not dist.is_available() or not dist.is_backend_available(backend):
        return Finding(False, f"This torch was built without {backend}: install another build.")
    worked, message = run_python(_COLLECTIVE.format(backend=backend, device=device))
    if not worked:
        return Finding(False, f"{backend} does not work here ({message}): several processes cannot train.")
    return Finding(True, f"{backend} works.")


def torchvision() -> Finding:
    """Whether torchvision, which nothing here needs, keeps other packages from being imported."""
    worked, message = imported("torchvision")
    if worked:
        return Finding(True, f"torchvision {message} goes with {_TORCH}.")
    if message == _ABSENT:
        return Finding(True, "torchvision is not installed, and nothing here needs it.")
    return Finding(
        False,
        f"torchvision{_version('torchvision')} does not go with {_TORCH} ({message}): beside it diffusers "
        "and transformers cannot be imported. Uninstall torchvision, or install the build of it that is for "
        "this torch.",
    )


def package(module: str, name: str) -> Finding:
    """Whether a package can be imported, in a process of its own."""
    worked, message = imported(module)
    if worked:
        return Finding(True, f"{name} {message} can be imported.")
    if message == _ABSENT:
        return Finding(False, f"{name} is not installed: pip install {name}.")
    return Finding(False, f"{name}{_version(name)} cannot be imported ({message}).")


def free_disk(folder: str | Path, needed_gb: float) -> Finding:
    """Whether checkpoints have room; folder may still have to be made."""
    path = Path(folder).resolve()
    free = shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free / GB
    message = f"{folder} has {free:,.0f} GB free and {needed_gb:,.0f} GB are wanted for checkpoints"
    return _finding(free >= needed_gb, message, "make room")


def weights_file(path: str | Path) -> Finding:
    """Whether a file of weights is there; a .safetensors must have a header and all of its bytes."""
    path = Path(path)
    if not path.is_file():
        return Finding(False, f"There is no file {path}: download it, or correct the configuration.")
    if path.suffix == ".safetensors":
        try:
            read_metadata(path)
        except ValueError as error:
            return Finding(False, str(error))
    elif not path.stat().st_size:
        return Finding(False, f"{path} is empty: download it again.")
    return Finding(True, f"{path} is there ({path.stat().st_size / GB:.2f} GB).")


def _finding(ok: bool, message: str, remedy: str) -> Finding:
    return Finding(ok, f"{message}." if ok else f"{message}: {remedy}.")


_TORCH = f"torch {torch.__version__}"
_ABSENT = "absent"
_IMPORT = """
import importlib, importlib.util
if importlib.util.find_spec("{module}") is None:
    raise SystemExit("{absent}")
print(getattr(importlib.import_module("{module}"), "__version__", ""))
"""


def imported(module: str) -> tuple[bool, str]:
    """Whether a module can be imported, and its version, or why not; "absent" where there is none.

    Asked in a process of its own: a broken one may leave half of itself behind, or end the process.
    """
    return run_python(_IMPORT.format(module=module, absent=_ABSENT))


def run_python(code: str) -> tuple[bool, str]:
    """Whether this Python runs `code`, and the last line it wrote."""
    try:
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer in {_PATIENCE_S} s"
    if ran.returncode < 0:
        return False, f"ended by signal {-ran.returncode}"
    return ran.returncode == 0, _last_line(ran.stdout if ran.returncode == 0 else ran.stderr)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def _version(name: str) -> str:
    try:
        return f" {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return ""
