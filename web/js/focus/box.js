// Where a letterboxed picture lies in its element, and which point of it is under the pointer. No DOM.

/** Steps of the widgets' values from one edge of the picture to the other. */
const STEPS = 10000

const clamp = (value, least, most) => Math.min(most, Math.max(least, value))

/**
 * The box of a whole picture centred in an element, on whole pixels: browsers round to them when
 * drawing, so a fractional box would be up to half a pixel off.
 * @returns {{left: number, top: number, width: number, height: number}} in the element's own pixels
 */
export function containedBox(element, picture) {
  const scale = Math.min(element.width / picture.width, element.height / picture.height)
  const width = Math.max(1, Math.round(picture.width * scale))
  const height = Math.max(1, Math.round(picture.height * scale))
  return {
    left: Math.round((element.width - width) / 2), top: Math.round((element.height - height) / 2), width, height,
  }
}

/**
 * The point of the picture under the pointer, clamped to the picture.
 * @param {{clientX: number, clientY: number}} pointer
 * @param {{left: number, top: number, width: number, height: number}} rect of the picture on the page, with
 *   the zoom of the canvas
 * @returns {{x: number, y: number}} shares of width and height, 0..1 from the top left
 */
export function pointUnder({ clientX, clientY }, rect) {
  return rounded({ x: (clientX - rect.left) / rect.width, y: (clientY - rect.top) / rect.height })
}

/** Whether the pointer is on the picture and not on the bars around it; arguments as `pointUnder`. */
export function isOnPicture({ clientX, clientY }, { left, top, width, height }) {
  return clientX >= left && clientY >= top && clientX <= left + width && clientY <= top + height
}

/** Place of a point in the element, given the box of the picture in it. */
export const placeOf = ({ x, y }, box) => ({ left: box.left + x * box.width, top: box.top + y * box.height })

/** A point as the widgets store it: four decimals, within the picture. */
export function rounded({ x, y }) {
  const share = (value) => Math.round(clamp(value, 0, 1) * STEPS) / STEPS
  return { x: share(x), y: share(y) }
}

/** A point moved by whole pixels of the picture. */
export function nudged(point, dx, dy, picture) {
  // a pixel of a very large picture is smaller than a step of the widget
  const step = (size) => Math.max(1 / size, 1 / STEPS)
  return rounded({ x: point.x + dx * step(picture.width), y: point.y + dy * step(picture.height) })
}
