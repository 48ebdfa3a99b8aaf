// Focus, preview settings and summary of a Focus Point, from its widgets and the last run. No DOM.
import { inverseAt } from './depth.js'
import {
  FAR_M,
  acceptableCocPx,
  apertureForRange,
  blurPerInverseMetre,
  inverseFocus,
  rangeFocus,
  sharpLimits,
} from './optics.js'
import { both, fStop, metres } from './format.js'

/** Blur radii are capped at this share of the longer side, so that a preview stays quick. */
const MAX_BLUR = 1 / 6

/**
 * @typedef {object} Chosen values of the node's widgets
 * @property {{x: number, y: number}} point
 * @property {?{x: number, y: number}} second
 * @property {string} sample
 */

const same = (point, pair) => (pair ? point?.x === pair[0] && point?.y === pair[1] : !point)

/** Whether the last run measured these very points. */
export function isMeasured(chosen, info) {
  return same(chosen.point, info.point) && same(chosen.second, info.range) && chosen.sample === info.sample
}

/**
 * Focus distance and, for a range, the inverse distances of its ends.
 * @param {Chosen} chosen
 * @param {object} info focus_info of the last run
 * @param {import('./depth.js').Depth} depth
 */
export function focusOf(chosen, info, depth) {
  const atMostSky = (inverse) => Math.max(inverse, 1 / FAR_M)
  const patch = chosen.sample !== 'point'
  const one = atMostSky(inverseAt(depth, chosen.point, patch))
  const ends = chosen.second && [one, atMostSky(inverseAt(depth, chosen.second, patch))]
  if (isMeasured(chosen, info)) return { distance: info.distance_m, ends }
  return { distance: ends ? rangeFocus(...ends) : 1 / one, ends }
}

/** The shader's settings for a focus and a camera, in pixels of the preview. */
export function lookOf(distance, camera, info, depth) {
  const sharp = (acceptableCocPx(info.width, info.height) * depth.width) / info.width
  return {
    focus: inverseFocus(distance, camera),
    gain: blurPerInverseMetre(distance, camera, depth.width) / 2,
    maxRadius: MAX_BLUR * Math.max(depth.width, depth.height),
    sharpRadius: sharp / 2,
  }
}

/**
 * The summary of a focus: its distance, and what will be sharp.
 * @returns {{focus: string, detail: string}}
 */
export function describe({ distance, ends }, camera, info) {
  const sharp = acceptableCocPx(info.width, info.height)
  const [near, far] = sharpLimits(distance, camera, info.width, sharp)
  const limits = `sharp ${metres(near)} – ${metres(far)} at ${fStop(camera.f_number)}`
  if (!ends) return { focus: distance >= FAR_M ? 'sky · far away' : both(distance), detail: limits }
  const [a, b] = ends.map((inverse) => 1 / inverse).sort((x, y) => x - y)
  const enough = near <= a * (1 + 1e-6) && far >= b * (1 - 1e-6)
  const stop = apertureForRange(...ends, camera, info.width, sharp)
  const advice = stop ? `${fStop(stop)} keeps both ends sharp` : 'no aperture keeps both ends sharp'
  return { focus: `${metres(a)} – ${metres(b)}, at ${both(distance)}`, detail: enough ? limits : advice }
}
