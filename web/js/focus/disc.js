// The calibrated soft disc of lens_models/disc.py, as a table for the shader. No DOM.

const nextLevel = (level) => level + (level < 4 ? 0.25 : level < 12 ? 0.5 : Math.max(1, level / 32))

/** Sum and second moment per axis of the level kernel clamp(L - distance, 0, 1) on the lattice. */
function moments(level) {
  const reach = Math.ceil(level) - 1
  let total = 0
  let second = 0
  for (let y = -reach; y <= reach; y++) {
    for (let x = -reach; x <= reach; x++) {
      const weight = Math.min(1, Math.max(0, level - Math.hypot(x, y)))
      total += weight
      second += weight * x * x
    }
  }
  return { level, total, variance: second / total }
}

/** Levels up to the one that reaches a radius; at least two. */
export function levelsFor(radius) {
  const levels = [moments(1), moments(1.25)]
  while (levels.at(-1).variance < (radius * radius) / 4) levels.push(moments(nextLevel(levels.at(-1).level)))
  return levels
}

/**
 * The disc of every radius 0..most in equal steps.
 * @param {number} most px
 * @param {number} perPixel steps per px
 * @returns {Float32Array} four numbers each: the two levels L, and their weights over their sums, so that the
 *   kernel is c0 clamp(L0 - d, 0, 1) + c1 clamp(L1 - d, 0, 1)
 */
export function discTable(most, perPixel) {
  const levels = levelsFor(most)
  const table = new Float32Array(4 * (Math.ceil(most * perPixel) + 1))
  let low = 0
  for (let i = 0; i < table.length / 4; i++) {
    const wanted = (i / perPixel) ** 2 / 4
    while (low < levels.length - 2 && levels[low + 1].variance <= wanted) low++
    const [a, b] = [levels[low], levels[low + 1]]
    const t = Math.min(1, (wanted - a.variance) / (b.variance - a.variance))
    table.set([a.level, b.level, (1 - t) / a.total, t / b.total], 4 * i)
  }
  return table
}
