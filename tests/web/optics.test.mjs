// The figures come from the core itself: tests/test_web_modules.py writes them and names the file.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { discTable, levelsFor } from '../../web/js/focus/disc.js'
import {
  THIRD_STOPS,
  acceptableCocPx,
  apertureForRange,
  assumedCamera,
  cameraFromWidgets,
  cocPx,
  framedWidth,
  nearestStop,
  rangeFocus,
  sharpLimits,
} from '../../web/js/focus/optics.js'

const core = JSON.parse(readFileSync(process.env.FINE_DEFOCUS_CORE, 'utf8'))

const near = (got, wanted, share = 1e-6) => {
  if (wanted === null) return assert.equal(got, Infinity)
  assert.ok(Math.abs(got - wanted) <= share * Math.max(Math.abs(wanted), 1e-6), `${got} is not ${wanted}`)
}

test('circle of confusion and sharp limits are those of lens_models.camera', () => {
  for (const { camera, distance, width, height, depths, coc, limits, sharp } of core.optics) {
    depths.forEach((depth, i) => near(cocPx(depth === null ? 0 : 1 / depth, distance, camera, width), coc[i], 1e-5))
    near(acceptableCocPx(width, height), sharp)
    const [one, other] = sharpLimits(distance, camera, width, sharp)
    near(one, limits[0])
    near(other, limits[1])
  }
})

test('a range is focused and stopped down as in lens_models.focus.point', () => {
  for (const { camera, ends, width, sharp, distance, f_number } of core.ranges) {
    const inverse = ends.map((m) => 1 / m)
    near(rangeFocus(...inverse), distance)
    const stop = apertureForRange(...inverse, camera, width, sharp)
    if (f_number > THIRD_STOPS.at(-1)) assert.equal(stop, null)
    else near(stop, f_number)
  }
})

test('the levels of the disc are those of lens_models.disc', () => {
  levelsFor(9).forEach(({ level, total, variance }, i) => {
    near(level, core.disc.size[i])
    near(total, core.disc.total[i])
    near(variance, core.disc.variance[i])
  })
})

test('every radius of the table has unit energy and the second moment of a disc', () => {
  const table = discTable(9, 64)
  for (let i = 0; i < table.length / 4; i += 17) {
    const [l0, l1, c0, c1] = table.subarray(4 * i, 4 * i + 4)
    let sum = 0
    let moment = 0
    for (let y = -10; y <= 10; y++) {
      for (let x = -10; x <= 10; x++) {
        const d = Math.hypot(x, y)
        const w = c0 * Math.min(1, Math.max(0, l0 - d)) + c1 * Math.min(1, Math.max(0, l1 - d))
        sum += w
        moment += w * x * x
      }
    }
    assert.ok(Math.abs(sum - 1) < 1e-5)
    assert.ok(Math.abs(moment - (i / 64) ** 2 / 4) < 1e-4)
  }
})

test('a Camera node is read as the server reads it', () => {
  const values = {
    aperture: 'f/1.4', f_number: 9, focal_mm: 85, sensor: 'Full frame 36 × 24 mm', sensor_width_mm: 1,
    sensor_height_mm: 1, framing: 'crop to the picture',
  }
  assert.deepEqual(cameraFromWidgets(values, 512, 512), { f_number: 1.4, focal_mm: 85, sensor_mm: 24 })
  const free = { ...values, aperture: 'free', sensor: 'custom', sensor_width_mm: 20, framing: 'width spans the sensor' }
  assert.deepEqual(cameraFromWidgets(free, 512, 512), { f_number: 9, focal_mm: 85, sensor_mm: 20 })
  assert.equal(framedWidth(36, 24, 600, 400), 36)
  assert.equal(framedWidth(36, 24, 400, 600), 24)
})

test('without a camera the picture keeps its own field of view', () => {
  const camera = assumedCamera({ width: 741, height: 500, fx_px: 994.978 })
  near(camera.focal_mm / camera.sensor_mm, 994.978 / 741)
  assert.equal(assumedCamera({ width: 600, height: 400, fx_px: null }).focal_mm, 50)
})

test('the stops are the project’s', () => {
  assert.deepEqual(THIRD_STOPS, core.stops)
  assert.equal(THIRD_STOPS[nearestStop(2.75)], 2.8)
  assert.equal(THIRD_STOPS[nearestStop(200)], 32)
})
