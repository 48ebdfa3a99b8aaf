"""Scores against truth: PSNR in sRGB or linear light. Written out here, not taken from `lens_models`."""

from __future__ import annotations

import numpy as np


def srgb_encode(linear):
    """IEC 61966-2-1, clipped to [0, 1]."""
    linear = np.clip(np.asarray(linear, float), 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def srgb_decode(encoded):
    encoded = np.asarray(encoded, float)
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def interior(picture, border: int):
    """The picture (H, W, C) without what the frame's border can have touched."""
    return picture[border:-border, border:-border] if border else picture


def psnr_linear(picture, truth, border: int = 0) -> float:
    """dB, both clipped to [0, 1]; `inf` where they are equal."""
    difference = np.clip(interior(picture, border), 0, 1) - np.clip(interior(truth, border), 0, 1)
    with np.errstate(divide="ignore"):
        return float(-10.0 * np.log10(np.mean(difference**2)))


def psnr_srgb(picture, truth, border: int = 0) -> float:
    return psnr_linear(srgb_encode(picture), srgb_encode(truth), border)
