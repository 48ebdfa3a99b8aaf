// Circle of confusion, depth of field and f-numbers, as in lens_models/camera.py. No DOM.

const MM_PER_M = 1000

/** Focus distance for the sky, metres: FAR_M of lens_models/focus/point.py. */
export const FAR_M = 10000

/** Nominal marks of the third-stop scale. */
export const THIRD_STOPS = [
  1, 1.1, 1.2, 1.4, 1.6, 1.8, 2, 2.2, 2.5, 2.8, 3.2, 3.5, 4, 4.5, 5, 5.6, 6.3, 7.1, 8, 9, 10, 11, 13, 14, 16, 18, 20,
  22, 25, 29, 32,
]

/**
 * @typedef {object} Camera
 * @property {number} f_number
 * @property {number} focal_mm
 * @property {number} sensor_mm width that the picture's width spans
 */

/** The camera where none is connected. */
export const ASSUMED = { f_number: 2.8, focal_mm: 50, width_mm: 36, height_mm: 24 }

/** Width of a sensor that a picture spans, mm: the largest crop, the sensor turned as the picture is. */
export function framedWidth(width_mm, height_mm, width, height) {
  const long = Math.max(width_mm, height_mm)
  const short = Math.min(width_mm, height_mm)
  const [wide, high] = width >= height ? [long, short] : [short, long]
  return Math.min(wide, (high * width) / height)
}

/**
 * `ASSUMED` for a picture: with the picture's own field of view, if the depth carries it.
 * @param {{width: number, height: number, fx_px: ?number}} info
 * @returns {Camera}
 */
export function assumedCamera({ width, height, fx_px }, f_number = ASSUMED.f_number) {
  const sensor_mm = framedWidth(ASSUMED.width_mm, ASSUMED.height_mm, width, height)
  return { f_number, focal_mm: fx_px ? (fx_px / width) * sensor_mm : ASSUMED.focal_mm, sensor_mm }
}

/** Inverse focus distance in 1/m; nearer than 1:1, twice the focal length, is focused there. */
export function inverseFocus(distance_m, camera) {
  return 1 / Math.max(distance_m, (2 * camera.focal_mm) / MM_PER_M)
}

/** Pixels of blur diameter per 1/m, for a picture `width` pixels wide. */
export function blurPerInverseMetre(distance_m, camera, width) {
  const { f_number, focal_mm, sensor_mm } = camera
  const reach = ((focal_mm * focal_mm) / f_number) * (width / sensor_mm)
  return reach / (MM_PER_M - focal_mm * inverseFocus(distance_m, camera))
}

/** Signed diameter of the circle of confusion, px: > 0 behind the focus, < 0 in front (eq. 6). */
export function cocPx(inverse, distance_m, camera, width) {
  return blurPerInverseMetre(distance_m, camera, width) * (inverseFocus(distance_m, camera) - inverse)
}

/** Largest blur diameter that counts as sharp, px: 1/1500 of the diagonal, at least 1. */
export const acceptableCocPx = (width, height) => Math.max(1, Math.hypot(width, height) / 1500)

/** Nearest and farthest sharp distance, metres; Infinity from the hyperfocal distance on. */
export function sharpLimits(distance_m, camera, width, sharp_px) {
  const reach = sharp_px / blurPerInverseMetre(distance_m, camera, width)
  const p = inverseFocus(distance_m, camera)
  return [1 / (p + reach), p > reach ? 1 / (p - reach) : Infinity]
}

/** Focus that blurs two inverse distances alike, metres. */
export const rangeFocus = (one, other) => 2 / (one + other)

/** First third stop at which both ends of a range stay within `sharp_px`; null where none is narrow enough. */
export function apertureForRange(one, other, camera, width, sharp_px) {
  const blur = Math.abs(cocPx(one, rangeFocus(one, other), camera, width))
  const needed = (camera.f_number * blur) / sharp_px
  return THIRD_STOPS.find((mark) => mark >= needed * (1 - 1e-6)) ?? null
}

/** Index of the third stop nearest to an f-number. */
export function nearestStop(f_number) {
  const stops = (n) => 2 * Math.log2(n)
  const away = THIRD_STOPS.map((mark) => Math.abs(stops(mark) - stops(f_number)))
  return away.indexOf(Math.min(...away))
}

/**
 * The camera that the Camera node's widgets describe, for a picture.
 * @param {Record<string, unknown>} values by widget name
 * @returns {Camera}
 */
export function cameraFromWidgets(values, width, height) {
  const mark = /^f\/([\d.]+)$/.exec(values.aperture)
  // the name of a format contains its sides: "Full frame 36 × 24 mm"
  const sides = /([\d.]+) × ([\d.]+) mm$/.exec(values.sensor)
  const [wide, high] = sides ? [+sides[1], +sides[2]] : [values.sensor_width_mm, values.sensor_height_mm]
  const crop = !String(values.framing).startsWith('width')
  return {
    f_number: mark ? +mark[1] : values.f_number,
    focal_mm: values.focal_mm,
    sensor_mm: crop ? framedWidth(wide, high, width, height) : wide,
  }
}
