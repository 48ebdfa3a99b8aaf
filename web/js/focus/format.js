// Distances and apertures as text. No DOM.

const FEET_PER_M = 3.28084

const three = (value) => String(+value.toPrecision(3))

/** "2.35 m", "8.5 cm", "∞". */
export function metres(distance) {
  if (!Number.isFinite(distance)) return '∞'
  if (distance < 1) return `${three(distance * 100)} cm`
  return `${distance < 1000 ? three(distance) : Math.round(distance)} m`
}

/** "7.71 ft", "3.35 in", "∞". */
export function feet(distance) {
  if (!Number.isFinite(distance)) return '∞'
  const value = distance * FEET_PER_M
  if (value < 1) return `${three(value * 12)} in`
  return `${value < 1000 ? three(value) : Math.round(value)} ft`
}

/** Both, for a label; "sky" for an infinite distance. */
export const both = (distance) => (Number.isFinite(distance) ? `${metres(distance)} · ${feet(distance)}` : 'sky')

/** "f/2.8". */
export const fStop = (f_number) => `f/${three(f_number)}`
