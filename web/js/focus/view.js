// The Focus Point on the page: picture, markers, loupe, buttons. Shows a state and passes actions to the picker.
import { containedBox, isOnPicture, placeOf, pointUnder } from './box.js'
import { inverseAt } from './depth.js'
import { addStyle, el, svg } from '../elements.js'
import { both, fStop } from './format.js'
import { THIRD_STOPS } from './optics.js'
import { STYLE } from './style.js'

const LOUPE_PX = 92
const LOUPE_ZOOM = 5
const GRAB_PX = 14
const HELP = 'Click: focus · Shift-click: range · arrows: nudge · hold C: compare'
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }

/** Whether a middle or right button is pressed: those are the editor's. */
export const otherButton = (event) => event.button === 1 || event.button === 2 || (event.buttons & 6) !== 0

/**
 * @typedef {object} State
 * @property {?object} scene picture, depth and bitmap; null before a run
 * @property {{x: number, y: number}} point
 * @property {?{x: number, y: number}} second
 * @property {string} sample
 * @property {?string} locked why the point cannot be moved here
 * @property {{focus: string, detail: string}} summary
 * @property {string} hint
 * @property {boolean} warning whether the hint is a warning
 * @property {string[]} notes warnings of the last run
 * @property {string} invitation text shown before there is a picture
 * @property {number} stop index of the nearest third stop to `f_number`
 * @property {number} f_number
 * @property {string} source where the aperture comes from
 * @property {boolean} apertureLocked
 * @property {boolean} zone
 * @property {boolean} blur
 * @property {boolean} live whether a live preview is possible
 */

export class FocusView {
  /** @param {import('./picker.js').Picker} picker */
  constructor(picker, enlargeLabel = 'Full size') {
    addStyle('fine-defocus-focus-style', STYLE)
    this.picker = picker
    this.state = null
    this.box = this.dragged = null
    this.armed = false
    this.build(enlargeLabel)
    this.listen()
    this.observer = new ResizeObserver(() => this.place())
    this.observer.observe(this.stage)
  }

  /** The element stays on the page: whoever put it there removes or replaces it. */
  destroy() {
    this.observer.disconnect()
  }

  build(enlargeLabel) {
    this.canvas = el('canvas', { class: 'picture', width: 1, height: 1 })
    const mark = (kind) =>
      svg('g', { class: kind, visibility: 'hidden' }, [
        svg('circle', { class: 'dark', r: 11 }),
        svg('circle', { class: 'light', r: 11 }),
        svg('circle', { class: 'dot', r: 3.5 }),
      ])
    this.line = svg('line', { visibility: 'hidden' })
    this.marks = { second: mark('second'), point: mark('point') }
    this.loupeCanvas = el('canvas', { width: 2 * LOUPE_PX, height: 2 * LOUPE_PX })
    this.loupeLabel = el('output')
    this.loupe = el('div', { class: 'loupe', hidden: true, 'aria-hidden': true }, [this.loupeCanvas, this.loupeLabel])
    this.invite = el('div', { class: 'invite' })
    this.stage = el('div', { class: 'stage', tabindex: 0, role: 'application', 'aria-label': 'Focus picker' }, [
      this.canvas,
      svg('svg', { class: 'marks', 'aria-hidden': true }, [this.line, this.marks.second, this.marks.point]),
      this.loupe,
      this.invite,
    ])
    this.distance = el('b')
    this.detail = el('span')
    this.stopLabel = el('b')
    this.source = el('span')
    this.slider = el('input', { type: 'range', min: 0, max: THIRD_STOPS.length - 1, 'aria-label': 'Aperture' })
    const button = (text, title, click) => {
      const element = el('button', { type: 'button', title }, [text])
      if (click) element.addEventListener('click', click)
      return element
    }
    const { picker } = this
    this.buttons = {
      blur: button('Blur', 'Live preview of the blur (B)', () => picker.toggle('blur')),
      zone: button('Zone', 'Tint: warm in front of the focus, cool behind it (Z)', () => picker.toggle('zone')),
      compare: button('Compare', 'Hold to see the sharp picture (C)'),
      range: button('Range', 'Next click: a second point; all between stays sharp (X clears)', () => this.armRange()),
      reset: button('Reset', 'Back to the middle of the picture (R)', () => picker.reset()),
      enlarge: button(enlargeLabel, 'The picture as large as the window (F)', () => picker.enlarge()),
    }
    this.hint = el('div', { class: 'hint', role: 'status' })
    this.notes = el('div', { class: 'notes', role: 'status' })
    this.root = el('div', { class: 'fine-defocus-focus empty', role: 'group', 'aria-label': 'Focus Point' }, [
      this.stage,
      el('div', { class: 'summary', 'aria-live': 'polite' }, [this.distance, this.detail]),
      el('div', { class: 'row aperture' }, [this.stopLabel, this.slider, this.source]),
      el('div', { class: 'row' }, Object.values(this.buttons)),
      this.hint,
      this.notes,
    ])
  }

  listen() {
    const { stage, slider, buttons, picker } = this
    stage.addEventListener('pointerdown', (e) => this.press(e))
    stage.addEventListener('pointermove', (e) => this.move(e))
    stage.addEventListener('pointerup', (e) => this.release(e))
    stage.addEventListener('pointercancel', (e) => this.release(e))
    stage.addEventListener('pointerleave', () => (this.loupe.hidden = true))
    stage.addEventListener('dblclick', () => this.state?.scene && !this.state.locked && picker.sampleSubject())
    stage.addEventListener('keydown', (e) => this.key(e))
    stage.addEventListener('keyup', (e) => e.key.toLowerCase() === 'c' && this.compare(false))
    stage.addEventListener('blur', () => this.compare(false))
    slider.addEventListener('input', () => picker.setAperture(slider.valueAsNumber, false))
    slider.addEventListener('change', () => picker.setAperture(slider.valueAsNumber, true))
    // arrows are for the slider, and Delete would remove the node
    slider.addEventListener('keydown', (e) => e.ctrlKey || e.metaKey || e.stopPropagation())
    for (const [name, on] of [['pointerdown', true], ['pointerup', false], ['pointerleave', false]]) {
      buttons.compare.addEventListener(name, () => this.compare(on))
    }
    buttons.compare.addEventListener('keydown', (e) => [' ', 'Enter'].includes(e.key) && this.compare(true))
    buttons.compare.addEventListener('keyup', () => this.compare(false))
    // the editor would drag the node, or start a selection, under the pointer
    for (const name of ['pointerdown', 'pointermove', 'pointerup']) {
      this.root.addEventListener(name, (e) => otherButton(e) || e.stopPropagation())
    }
  }

  compare(on) {
    if (on === !!this.comparing) return
    this.comparing = on
    this.picker.compare(on)
  }

  armRange() {
    if (this.state.second) this.picker.move('second', null, true)
    else this.armed = !this.armed
    this.show(this.state)
  }

  // ------------------------------------------------------------------------------------------ pointer

  under(event) {
    return pointUnder(event, this.canvas.getBoundingClientRect())
  }

  grabsSecond(event) {
    const { second } = this.state
    if (!second) return false
    const rect = this.canvas.getBoundingClientRect()
    const there = placeOf(second, rect)
    const reach = (GRAB_PX * rect.width) / this.box.width
    return Math.hypot(event.clientX - there.left, event.clientY - there.top) < reach
  }

  press(event) {
    if (event.button !== 0 || !this.box || this.state.locked) return
    this.stage.focus({ preventScroll: true })
    this.stage.setPointerCapture(event.pointerId)
    this.dragged = event.shiftKey || this.armed || this.grabsSecond(event) ? 'second' : 'point'
    this.armed = false
    this.drag(event)
    this.look(event)
  }

  drag(event) {
    this.draggedTo = this.under(event)
    this.picker.move(this.dragged, this.draggedTo, false)
  }

  move(event) {
    if (!this.box) return
    if (this.dragged) this.drag(event)
    this.look(event)
  }

  release(event) {
    if (this.dragged) this.picker.move(this.dragged, this.draggedTo, true)
    this.dragged = null
    if (event.pointerType === 'touch') this.loupe.hidden = true
  }

  /** The loupe at the pointer: the sharp picture, five times as large, and the distance there. */
  look(event) {
    const { scene, sample } = this.state
    if (!isOnPicture(event, this.canvas.getBoundingClientRect()) && !this.dragged) {
      this.loupe.hidden = true
      return
    }
    const point = this.under(event)
    const inverse = inverseAt(scene, point, sample !== 'point')
    this.loupeLabel.textContent = both(inverse > 0 ? 1 / inverse : Infinity)
    const size = this.loupeCanvas.width / LOUPE_ZOOM / 2
    const context = this.loupeCanvas.getContext('2d')
    context.imageSmoothingEnabled = false
    context.clearRect(0, 0, this.loupeCanvas.width, this.loupeCanvas.height)
    const [x, y] = [point.x * scene.width - size / 2, point.y * scene.height - size / 2]
    context.drawImage(scene.picture, x, y, size, size, 0, 0, this.loupeCanvas.width, this.loupeCanvas.height)
    const middle = this.loupeCanvas.width / 2
    for (const [colour, width] of [['#000a', 5], ['#fff', 2]]) {
      context.fillStyle = colour
      context.fillRect(middle - 16, middle - width / 2, 32, width)
      context.fillRect(middle - width / 2, middle - 16, width, 32)
    }
    this.loupe.hidden = false
    const element = { width: this.stage.clientWidth, height: this.stage.clientHeight }
    const place = placeOf(point, this.box)
    const x0 = place.left + 24 + LOUPE_PX < element.width ? place.left + 24 : place.left - 24 - LOUPE_PX
    const tall = LOUPE_PX + 24
    this.loupe.style.left = `${Math.max(2, x0)}px`
    this.loupe.style.top = `${Math.min(Math.max(2, place.top - tall - 8), Math.max(2, element.height - tall))}px`
  }

  // ------------------------------------------------------------------------------------------ keyboard

  key(event) {
    const { state, picker } = this
    if (event.ctrlKey || event.metaKey || event.altKey || !state?.scene) return
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key
    const does = {
      c: () => this.compare(true),
      z: () => picker.toggle('zone'),
      b: () => picker.toggle('blur'),
      r: () => picker.reset(),
      f: () => picker.enlarge(),
      x: () => !state.locked && picker.move('second', null, true),
      '[': () => picker.stepAperture(-1),
      ']': () => picker.stepAperture(1),
    }[key]
    if (does) does()
    else if (ARROWS[key] && !state.locked) {
      const [dx, dy] = ARROWS[key].map((step) => step * (event.shiftKey ? 10 : 1))
      picker.nudge(dx, dy)
    } else if (!['Delete', 'Backspace', ' '].includes(key)) return
    event.preventDefault()
    event.stopPropagation()
  }

  // ------------------------------------------------------------------------------------------ showing

  /** @param {State} state */
  show(state) {
    this.state = state
    const { root, buttons, slider } = this
    root.classList.toggle('empty', !state.scene)
    root.classList.toggle('locked', !!state.locked)
    this.invite.hidden = !!state.scene
    this.invite.style.display = state.scene ? 'none' : ''
    this.invite.textContent = state.invitation
    this.distance.textContent = state.summary.focus
    this.detail.textContent = state.summary.detail
    this.detail.title = state.summary.detail
    this.hint.textContent = this.armed ? 'Click the other thing that should be sharp.' : state.hint || HELP
    this.hint.title = this.hint.textContent
    this.hint.classList.toggle('warning', state.warning)
    this.notes.textContent = state.notes.join('\n')
    this.notes.hidden = !state.notes.length
    this.stopLabel.textContent = fStop(state.f_number)
    this.source.textContent = state.source
    slider.value = state.stop
    slider.disabled = !state.scene || state.apertureLocked
    slider.setAttribute('aria-valuetext', fStop(state.f_number))
    for (const button of Object.values(buttons)) button.disabled = !state.scene
    for (const button of [buttons.range, buttons.reset]) button.disabled ||= !!state.locked
    buttons.blur.disabled ||= !state.live
    buttons.blur.setAttribute('aria-pressed', state.blur && state.live)
    buttons.zone.setAttribute('aria-pressed', state.zone)
    buttons.range.setAttribute('aria-pressed', !!state.second || this.armed)
    this.stage.setAttribute('aria-description', `${state.summary.focus}. ${state.summary.detail}. ${HELP}`)
    this.place()
  }

  /** Copy the drawn preview; one smaller than the picture is laid over the picture. */
  paint(drawn, { width, height, picture }) {
    if (this.canvas.width !== width || this.canvas.height !== height) {
      Object.assign(this.canvas, { width, height })
    }
    const context = this.canvas.getContext('2d')
    if (drawn.width < width) context.drawImage(picture, 0, 0)
    context.drawImage(drawn, 0, 0, width, height)
  }

  /** Position picture and marks; an element that is not laid out yet is positioned by its observer later. */
  place() {
    const { scene, point, second } = this.state ?? {}
    const element = { width: this.stage.clientWidth, height: this.stage.clientHeight }
    this.box = scene && element.width > 0 && element.height > 0 ? containedBox(element, scene) : null
    this.canvas.hidden = !this.box
    for (const [side, size] of Object.entries(this.box ?? {})) this.canvas.style[side] = `${size}px`
    const places = {}
    for (const [name, at] of Object.entries({ point, second })) {
      const visible = this.box && at
      this.marks[name].setAttribute('visibility', visible ? 'visible' : 'hidden')
      if (!visible) continue
      places[name] = placeOf(at, this.box)
      this.marks[name].setAttribute('transform', `translate(${places[name].left} ${places[name].top})`)
    }
    const both = places.point && places.second
    this.line.setAttribute('visibility', both ? 'visible' : 'hidden')
    if (!both) return
    for (const [end, { left, top }] of [[1, places.point], [2, places.second]]) {
      this.line.setAttribute(`x${end}`, left)
      this.line.setAttribute(`y${end}`, top)
    }
  }
}
