import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inverseAt, pixelAt, unpackDepth } from '../../web/js/focus/depth.js'

/** RGBA as the node packs it. */
function packed(metres, measured = metres.map(() => true)) {
  const finite = metres.filter(Number.isFinite)
  const [near, far] = finite.length ? [Math.min(...finite), Math.max(...finite)] : [null, null]
  const rgba = new Uint8ClampedArray(4 * metres.length)
  metres.forEach((m, i) => {
    const span = 1 / near - 1 / far
    const code = Number.isFinite(m) ? 1 + Math.round(span ? ((1 / m - 1 / far) / span) * 65534 : 0) : 0
    rgba.set([code >> 8, code & 255, measured[i] ? 255 : 0, 255], 4 * i)
  })
  return [rgba, near, far]
}

const depthOf = (metres, width, height, measured) => {
  const [rgba, near, far] = packed(metres, measured)
  return unpackDepth(rgba, width, height, near, far)
}

test('sixteen bits come back', () => {
  const metres = Array.from({ length: 1000 }, (_, i) => 0.7 + i * 0.05)
  const { inverse } = depthOf(metres, 100, 10)
  const step = (1 / 0.7 - 1 / metres.at(-1)) / 65534
  metres.forEach((m, i) => assert.ok(Math.abs(inverse[i] - 1 / m) <= 0.51 * step + 1e-7))
})

test('sky is 0, a flat depth is flat, and all sky is no distance', () => {
  assert.deepEqual([...depthOf([2, Infinity, 4, 2], 2, 2).inverse], [0.5, 0, 0.25, 0.5])
  assert.deepEqual([...depthOf([4, 4], 2, 1).inverse], [0.25, 0.25])
  assert.deepEqual([...depthOf([Infinity, Infinity], 2, 1).inverse], [0, 0])
})

test('the far edges belong to the last pixel', () => {
  assert.equal(pixelAt({ x: 1, y: 1 }, { width: 4, height: 3 }), 11)
  assert.equal(pixelAt({ x: 0.25, y: 0 }, { width: 4, height: 3 }), 1)
})

test('a point is one pixel, a patch the median of what was measured', () => {
  const metres = Array.from({ length: 400 }, () => 4)
  metres[210] = 1
  const depth = depthOf(metres, 20, 20)
  const at = { x: 10.5 / 20, y: 10.5 / 20 }
  assert.equal(inverseAt(depth, at, false), 1)
  assert.equal(inverseAt(depth, at, true), 0.25)
  const only = metres.map((_, i) => i === 210)
  assert.equal(inverseAt(depthOf(metres, 20, 20, only), at, true), 1)
})
