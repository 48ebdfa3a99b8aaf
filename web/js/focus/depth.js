// Depth as the node sends it: 16 bits of inverse distance in two channels of a PNG. No DOM.

const CODES = 65534
/** Side of the small patch as a share of the shorter side, as in lens_models/focus/point.py. */
const PATCH_SHARE = 0.015

/**
 * @typedef {object} Depth
 * @property {number} width
 * @property {number} height
 * @property {Float32Array} inverse 1/m by row; sky is 0
 * @property {Uint8Array} measured 1 where the depth is measured, not filled
 */

/**
 * @param {Uint8ClampedArray} rgba high byte, low byte, measured, opaque; code 0 is sky
 * @param {?number} near metres of the largest code; null where all is sky
 * @param {?number} far metres of code 1
 * @returns {Depth}
 */
export function unpackDepth(rgba, width, height, near, far) {
  const inverse = new Float32Array(width * height)
  const measured = new Uint8Array(width * height)
  const low = far ? 1 / far : 0
  const step = near ? (1 / near - low) / CODES : 0
  for (let i = 0; i < inverse.length; i++) {
    const code = rgba[4 * i] * 256 + rgba[4 * i + 1]
    inverse[i] = code === 0 ? 0 : low + (code - 1) * step
    measured[i] = rgba[4 * i + 2] > 127 ? 1 : 0
  }
  return { width, height, inverse, measured }
}

/** Index of the pixel that contains a point. */
export function pixelAt(point, { width, height }) {
  const column = Math.min(width - 1, Math.floor(point.x * width))
  const row = Math.min(height - 1, Math.floor(point.y * height))
  return row * width + column
}

/**
 * Inverse distance at a point as the node will measure it.
 * @param {Depth} depth
 * @param {{x: number, y: number}} point
 * @param {boolean} patch the median of a small patch instead of the one pixel
 * @returns {number} 1/m, 0 for sky
 */
export function inverseAt(depth, point, patch) {
  const index = pixelAt(point, depth)
  if (!patch) return depth.inverse[index]
  const { width, height } = depth
  const reach = Math.max(1, Math.round((PATCH_SHARE * Math.min(width, height)) / 2))
  const row = Math.floor(index / width)
  const column = index % width
  const all = []
  const measured = []
  for (let y = Math.max(0, row - reach); y <= Math.min(height - 1, row + reach); y++) {
    for (let x = Math.max(0, column - reach); x <= Math.min(width - 1, column + reach); x++) {
      const i = y * width + x
      all.push(depth.inverse[i])
      if (depth.measured[i]) measured.push(depth.inverse[i])
    }
  }
  const values = (measured.length ? measured : all).sort((a, b) => b - a)
  return values[(values.length - 1) >> 1]
}
