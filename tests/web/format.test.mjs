import assert from 'node:assert/strict'
import { test } from 'node:test'
import { both, fStop, feet, metres } from '../../web/js/focus/format.js'

test('metres', () => {
  assert.deepEqual([2.3456, 0.085, 42, 1234.6, Infinity].map(metres), ['2.35 m', '8.5 cm', '42 m', '1235 m', '∞'])
})

test('feet', () => {
  assert.deepEqual([2.35, 0.085, 42, Infinity].map(feet), ['7.71 ft', '3.35 in', '138 ft', '∞'])
})

test('both, and the sky', () => {
  assert.equal(both(2.35), '2.35 m · 7.71 ft')
  assert.equal(both(Infinity), 'sky')
  assert.equal(fStop(2.8), 'f/2.8')
  assert.equal(fStop(22), 'f/22')
})
