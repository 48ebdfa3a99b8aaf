"""The all-in-focus generator: SDXL distilled to a few steps, and its camera conditioning."""

from .card import GeneratorCard, export_metadata, read_card
from .exif_embedding import ExifEmbedding, load_exif_embedding, save_exif_embedding
from .schedule import FOUR_STEPS, STEP_COUNTS, ItemNoise, timesteps

__all__ = [
    "FOUR_STEPS",
    "STEP_COUNTS",
    "ExifEmbedding",
    "GeneratorCard",
    "ItemNoise",
    "export_metadata",
    "load_exif_embedding",
    "read_card",
    "save_exif_embedding",
    "timesteps",
]
