// The in-focus zone without WebGL2: the colours of lens_models/show/overlay.py, pixel by pixel. No DOM.

const NEAR = [255, 107, 26]
const FAR = [41, 122, 255]
const SHARP = [64, 242, 102]

/**
 * Tint what is not in focus, in place.
 * @param {Uint8ClampedArray} rgba sRGB
 * @param {{width: number, height: number, inverse: Float32Array}} depth
 * @param {{focus: number, gain: number, sharpRadius: number}} look
 */
export function tint(rgba, { width, height, inverse }, { focus, gain, sharpRadius }) {
  const full = Math.max(0.01 * Math.hypot(width, height), 2 * sharpRadius)
  const radius = inverse.map((q) => gain * (focus - q))
  const sharp = (x, y) => x >= 0 && y >= 0 && x < width && y < height && Math.abs(radius[y * width + x]) <= sharpRadius
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (sharp(x, y)) continue
      const i = y * width + x
      const edge = sharp(x - 1, y) || sharp(x + 1, y) || sharp(x, y - 1) || sharp(x, y + 1)
      const luma = 0.2126 * rgba[4 * i] + 0.7152 * rgba[4 * i + 1] + 0.0722 * rgba[4 * i + 2]
      const share = Math.min(1, (Math.abs(radius[i]) - sharpRadius) / (full - sharpRadius))
      const amount = 0.35 + 0.45 * Math.sqrt(share)
      const colour = radius[i] < 0 ? NEAR : FAR
      for (let c = 0; c < 3; c++) {
        const tinted = colour[c] * (0.25 + (0.75 * luma) / 255)
        rgba[4 * i + c] = edge ? SHARP[c] : 0.8 * luma + amount * (tinted - 0.8 * luma)
      }
    }
  }
}
