import assert from 'node:assert/strict'
import { test } from 'node:test'
import { describe, focusOf, isMeasured, lookOf } from '../../web/js/focus/model.js'
import { tint } from '../../web/js/focus/tint.js'

// left half at 2 m, right half at 4 m, one row of sky on top
const width = 8
const height = 4
const inverse = Float32Array.from({ length: width * height }, (_, i) => (i < width ? 0 : i % width < 4 ? 0.5 : 0.25))
const depth = { width, height, inverse, measured: new Uint8Array(width * height).fill(1) }
const info = { width: 800, height: 400, point: [0.2, 0.6], range: null, sample: 'point', distance_m: 2.02 }
const camera = { f_number: 2, focal_mm: 85, sensor_mm: 36 }
const left = { x: 0.2, y: 0.6 }
const right = { x: 0.8, y: 0.6 }
const sky = { x: 0.5, y: 0 }
const chosen = (point, second = null) => ({ point, second, sample: 'point' })

test('what the last run measured is believed, anything else is looked up', () => {
  assert.equal(isMeasured(chosen(left), info), true)
  assert.equal(focusOf(chosen(left), info, depth).distance, 2.02)
  assert.equal(focusOf(chosen(right), info, depth).distance, 4)
  assert.equal(isMeasured({ ...chosen(left), sample: 'subject' }, info), false)
})

test('a second point makes a range', () => {
  const { distance, ends } = focusOf(chosen(left, right), info, depth)
  assert.deepEqual(ends, [0.5, 0.25])
  assert.ok(Math.abs(distance - 8 / 3) < 1e-9)
  const { focus, detail } = describe({ distance, ends }, camera, info)
  assert.equal(focus, '2 m – 4 m, at 2.67 m · 8.75 ft')
  assert.match(detail, /^f\/\d+ keeps both ends sharp$|^no aperture/)
})

test('the sky is far and finite', () => {
  const focus = focusOf(chosen(sky), info, depth)
  assert.ok(Math.abs(focus.distance - 10000) < 1e-6)
  assert.equal(describe(focus, camera, info).focus, 'sky · far away')
})

test('the summary of one point', () => {
  const { focus, detail } = describe({ distance: 2.02, ends: null }, camera, info)
  assert.equal(focus, '2.02 m · 6.63 ft')
  assert.match(detail, /^sharp 1.97 m – 2.07 m at f\/2$/)
})

test('the preview blurs in its own pixels', () => {
  const small = lookOf(2, camera, info, depth)
  const large = lookOf(2, camera, info, { ...depth, width: 16, height: 8 })
  assert.ok(Math.abs(large.gain / small.gain - 2) < 1e-9)
  assert.ok(Math.abs(large.sharpRadius / small.sharpRadius - 2) < 1e-9)
  assert.equal(small.focus, 0.5)
})

test('without WebGL2 the zone is tinted on plain pixels', () => {
  const rgba = new Uint8ClampedArray(4 * width * height).fill(128)
  tint(rgba, depth, { focus: 0.5, gain: 40, sharpRadius: 0.5 })
  const at = (x, y) => [...rgba.slice(4 * (y * width + x), 4 * (y * width + x) + 3)]
  assert.deepEqual(at(1, 2), [128, 128, 128])
  assert.deepEqual(at(4, 2), [64, 242, 102])
  assert.ok(at(6, 2)[2] > at(6, 2)[0])
})
