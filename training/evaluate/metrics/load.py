"""The segmenter that a config names."""

from __future__ import annotations

from pathlib import Path

from .segmenter import TransformersSegmenter, load_transformers_segmenter
from .semantic_sam import SemanticSam, SemanticSamOptions, load_semantic_sam


def load_segmenter(source: str | Path | SemanticSamOptions) -> TransformersSegmenter | SemanticSam:
    """One network, from a folder of the transformers library, or Semantic Segment Anything, from its options.

    Nothing is downloaded. Raises FileNotFoundError and ValueError as the two loaders do.
    """
    if isinstance(source, (str, Path)):
        return load_transformers_segmenter(source)
    return load_semantic_sam(source)
