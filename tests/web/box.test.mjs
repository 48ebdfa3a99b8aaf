import assert from 'node:assert/strict'
import { test } from 'node:test'
import { containedBox, isOnPicture, nudged, placeOf, pointUnder, rounded } from '../../web/js/focus/box.js'

const SHAPES = { landscape: [741, 500], portrait: [500, 741], panorama: [3000, 400], square: [512, 512] }
const ELEMENT = { width: 380, height: 300 }

test('a picture is shown whole, centred, in its own shape, on whole pixels', () => {
  for (const [width, height] of Object.values(SHAPES)) {
    const box = containedBox(ELEMENT, { width, height })
    assert.ok(Object.values(box).every(Number.isInteger))
    assert.ok(box.left >= 0 && box.top >= 0 && box.width <= ELEMENT.width && box.height <= ELEMENT.height)
    assert.ok(box.width === ELEMENT.width || box.height === ELEMENT.height)
    assert.ok(Math.abs(box.width - (box.height * width) / height) <= 0.5 * Math.max(1, width / height))
    assert.ok(Math.abs(2 * box.left + box.width - ELEMENT.width) <= 1)
    assert.ok(Math.abs(2 * box.top + box.height - ELEMENT.height) <= 1)
  }
})

for (const zoom of [0.5, 1, 2]) {
  test(`a click finds its point at zoom ${zoom}`, () => {
    for (const [width, height] of Object.values(SHAPES)) {
      const box = containedBox(ELEMENT, { width, height })
      const rect = {
        left: 113.7 + box.left * zoom, top: -41.2 + box.top * zoom, width: box.width * zoom, height: box.height * zoom,
      }
      for (const [x, y] of [[0.5, 0.5], [0.013, 0.9], [0.999, 0.001]]) {
        const { left, top } = placeOf({ x, y }, rect)
        assert.deepEqual(pointUnder({ clientX: left, clientY: top }, rect), { x, y })
        assert.ok(isOnPicture({ clientX: left, clientY: top }, rect))
      }
    }
  })
}

test('the bars beside a picture are its edge', () => {
  const rect = containedBox(ELEMENT, { width: 741, height: 500 })
  const bar = { clientX: 190, clientY: 1 }
  assert.deepEqual(pointUnder(bar, rect), { x: 0.5, y: 0 })
  assert.equal(isOnPicture(bar, rect), false)
})

test('points are held within the picture, to four decimals', () => {
  assert.deepEqual(rounded({ x: -0.2, y: 1.7 }), { x: 0, y: 1 })
  assert.deepEqual(rounded({ x: 0.123449, y: 0.55555 }), { x: 0.1234, y: 0.5556 })
})

test('a nudge is a pixel, and always moves', () => {
  const picture = { width: 500, height: 20000 }
  assert.deepEqual(nudged({ x: 0.5, y: 0.5 }, 1, -1, picture), { x: 0.502, y: 0.4999 })
  assert.deepEqual(nudged({ x: 0, y: 1 }, -1, 1, picture), { x: 0, y: 1 })
})
