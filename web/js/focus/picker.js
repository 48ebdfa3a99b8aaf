// Focus Point in the graph: its widgets hold what was chosen, this draws it and writes them.
import { nudged } from './box.js'
import {
  apertureIsLinked,
  cameraNodeOf,
  cameraValues,
  forwardToCanvas,
  isLinked,
  lastOutput,
  rememberStep,
  setWidget,
  takePlace,
  widgetOf,
} from './graph.js'
import { QUALITY } from './gpu.js'
import { Gone, loadScene } from './load.js'
import { focusOf, isMeasured, lookOf, wordsFor } from './model.js'
import { ASSUMED, THIRD_STOPS, assumedCamera, cameraFromWidgets, nearestStop } from './optics.js'
import { shared } from './shared.js'
import { tint } from './tint.js'
import { FocusView, otherButton } from './view.js'

const NAME = 'focus_picker'
const SIZE = [400, 680]
const LEAST_HEIGHT = 230
const SETTLED_MS = 160
const INVITATION = 'Run the workflow once: the picture appears here. Then click what shall be sharp.'
const GONE = 'The picture of the last run is gone from the server. Run again to see it.'
const NO_CAMERA = 'assumed camera'

/** Tells pickers that a Camera node was changed. */
export const cameras = new EventTarget()

const quiet = { focus: 'No picture yet', detail: '' }

class Picker {
  constructor(node) {
    this.node = node
    this.scene = this.info = this.frame = this.settling = null
    this.invite = INVITATION
    this.notes = []
    this.comparing = this.moving = false
    this.views = new Set()
    this.refresh = () => this.schedule()
    this.view = this.addView()
    this.root = this.view.root
    cameras.addEventListener('change', this.refresh)
    forwardToCanvas(this.root, otherButton)
    const widget = node.addDOMWidget(NAME, NAME, this.root, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => LEAST_HEIGHT,
      getValue: () => '',
      setValue: () => {},
    })
    // it only draws: it must never stand among the values of a saved workflow
    widget.serialize = false
    for (const name of ['focus_x', 'focus_y', 'range_x', 'range_y', 'sample']) this.listenTo(widgetOf(node, name))
    node.setSize?.([Math.max(node.size[0], SIZE[0]), Math.max(node.size[1], SIZE[1])])
    this.schedule()
  }

  listenTo(widget) {
    if (!widget) return
    const { callback } = widget
    const { refresh } = this
    widget.callback = function (...args) {
      const result = callback?.apply(this, args)
      refresh()
      return result
    }
  }

  addView(...label) {
    const view = new FocusView(
      {
        move: (which, point, done) => this.move(which, point, done),
        nudge: (dx, dy) => this.nudge(dx, dy),
        aperture: (stop, done) => this.setAperture(stop, done),
        stepAperture: (by) => this.stepAperture(by),
        toggle: (name) => this.toggle(name),
        compare: (held) => this.compare(held),
        subject: () => this.wantSubject(),
        reset: () => this.reset(),
        enlarge: () => this.enlarge(),
      },
      ...label,
    )
    this.views.add(view)
    return view
  }

  destroy() {
    this.loading?.abort()
    cancelAnimationFrame(this.frame)
    clearTimeout(this.settling)
    this.dialog?.close()
    cameras.removeEventListener('change', this.refresh)
    for (const view of this.views) view.destroy()
    this.setScene(null)
  }

  // -------------------------------------------------------------------------------- what was chosen

  value(name) {
    return widgetOf(this.node, name)?.value
  }

  chosen() {
    const pair = (x, y) => ({ x: this.value(x), y: this.value(y) })
    const second = pair('range_x', 'range_y')
    const linked = this.locked() && this.info
    const point = linked ? { x: this.info.point[0], y: this.info.point[1] } : pair('focus_x', 'focus_y')
    const hasSecond = second.x >= 0 && second.y >= 0
    return { point, second: hasSecond ? second : null, sample: this.value('sample') }
  }

  locked() {
    const names = ['focus_x', 'focus_y', 'range_x', 'range_y'].filter((name) => isLinked(this.node, name))
    if (!names.length) return null
    return `${names.join(' and ')} ${names.length > 1 ? 'are' : 'is'} linked: the point comes from there.`
  }

  move(which, point, done) {
    const [x, y] = which === 'point' ? ['focus_x', 'focus_y'] : ['range_x', 'range_y']
    setWidget(this.node, x, point?.x ?? -1)
    setWidget(this.node, y, point?.y ?? -1)
    this.touched(done)
  }

  /** By picture pixels, from where the point is now: what was drawn last may be a frame old. */
  nudge(dx, dy) {
    if (this.scene && !this.locked()) this.move('point', nudged(this.chosen().point, dx, dy, this.info), true)
  }

  stepAperture(by) {
    if (this.scene) this.setAperture(nearestStop(this.camera().camera.f_number) + by, true)
  }

  setAperture(stop, done) {
    const f_number = THIRD_STOPS[Math.min(THIRD_STOPS.length - 1, Math.max(0, stop))]
    const camera = cameraNodeOf(this.node)
    if (camera && apertureIsLinked(camera)) return
    if (camera) {
      setWidget(camera, 'f_number', f_number)
      setWidget(camera, 'aperture', `f/${f_number}`)
    } else this.node.properties.preview_f_number = f_number
    this.touched(done)
  }

  toggle(name) {
    this.node.properties[`preview_${name}`] = !this.option(name)
    this.touched(true)
  }

  option(name) {
    return this.node.properties[`preview_${name}`] ?? name === 'blur'
  }

  compare(held) {
    this.comparing = held
    this.schedule()
  }

  wantSubject() {
    setWidget(this.node, 'sample', 'subject')
    this.touched(true)
  }

  reset() {
    if (this.locked()) return
    this.move('second', null, false)
    this.move('point', { x: 0.5, y: 0.5 }, true)
  }

  touched(done) {
    this.moving = !done
    this.node.setDirtyCanvas?.(true, false)
    this.schedule()
    if (done) rememberStep()
  }

  // ------------------------------------------------------------------------------------- what a run said

  async hear(output) {
    if (!output?.focus_info?.[0]) return
    this.notes = (output.text ?? []).slice(1) // the first is what the picker says anyway
    this.loading?.abort()
    const loading = (this.loading = new AbortController())
    try {
      const scene = await loadScene(output, loading.signal)
      if (loading.signal.aborted) return
      this.info = output.focus_info[0]
      this.setScene(scene)
    } catch (error) {
      if (error.name === 'AbortError') return
      this.invite = error instanceof Gone ? GONE : `The picture cannot be shown: ${error.message}`
      this.setScene(null)
    }
    this.schedule()
  }

  setScene(scene) {
    if (this.scene) {
      shared.renderer?.forget(this.scene)
      this.scene.picture.close()
    }
    this.scene = scene
    if (scene) shared.join(this.refresh)
    else shared.leave(this.refresh)
  }

  /** After a load, an undo or a tab switch: this node is new and the page may hold the element of the old. */
  configured() {
    const settle = () => {
      // the outputs of a tab come back a little after its nodes
      const output = lastOutput(this.node)
      if (output && !this.loading) this.hear(output)
      takePlace(this.node, this.root)
      this.schedule()
    }
    settle()
    requestAnimationFrame(settle)
    setTimeout(settle, 100)
  }

  // --------------------------------------------------------------------------------------------- drawing

  schedule() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null
      this.draw()
    })
  }

  camera() {
    const { width, height } = this.info
    const node = cameraNodeOf(this.node)
    // what comes through a link is known from the last run alone
    const known = node && !(apertureIsLinked(node) && this.info.camera)
    if (known) return { camera: cameraFromWidgets(cameraValues(node), width, height), whose: 'Camera' }
    if (isLinked(this.node, 'camera') && this.info.camera) return { camera: this.info.camera, whose: 'of the last run' }
    return { camera: assumedCamera(this.info, this.node.properties.preview_f_number), whose: NO_CAMERA }
  }

  draw() {
    const { scene, info } = this
    const chosen = this.chosen()
    const locked = this.locked()
    const renderer = scene && shared.get()
    const state = {
      ...chosen, scene, locked, invite: this.invite, words: quiet, whose: '', hint: locked ?? '', warning: !!locked,
      f_number: ASSUMED.f_number, stop: nearestStop(ASSUMED.f_number), apertureLocked: false,
      zone: this.option('zone'), blur: this.option('blur'), live: !!renderer, notes: this.notes,
    }
    if (scene) {
      const { camera, whose } = this.camera()
      const focus = focusOf(chosen, info, scene)
      const look = lookOf(focus.distance, camera, info, scene)
      const node = cameraNodeOf(this.node)
      Object.assign(state, {
        words: wordsFor(focus, camera, info),
        f_number: camera.f_number,
        stop: nearestStop(camera.f_number),
        whose,
        apertureLocked: node ? apertureIsLinked(node) : whose !== NO_CAMERA,
      })
      if (!locked && !isMeasured(chosen, info)) state.hint = this.pending(chosen)
      if (!renderer && shared.missing) {
        Object.assign(state, { hint: 'No WebGL2 in this browser: no live blur, only the zone.', warning: true })
      }
      const drawn = this.drawn(renderer, look, state)
      for (const view of this.views) view.paint(drawn, scene)
    }
    for (const view of this.views) view.show(state)
  }

  pending({ sample }) {
    if (sample === 'subject') return 'Run to measure the whole subject. Shown: a small patch.'
    return 'Preview. Run to focus the lens there.'
  }

  drawn(renderer, look, { zone, blur }) {
    const sharp = this.comparing || !blur
    if (renderer) {
      return renderer.draw(this.scene, { ...look, blur: !sharp, zone: zone && !this.comparing, quality: this.quality(renderer) })
    }
    if (!zone || this.comparing) return this.scene.picture
    const canvas = document.createElement('canvas')
    const { width, height, picture } = this.scene
    Object.assign(canvas, { width, height })
    const context = canvas.getContext('2d')
    context.drawImage(picture, 0, 0)
    const image = context.getImageData(0, 0, width, height)
    tint(image.data, this.scene, look)
    context.putImageData(image, 0, 0)
    return canvas
  }

  /** A GPU draws in full; software draws a draft while something moves and more taps when it rests. */
  quality(renderer) {
    if (!renderer.software) return QUALITY.full
    if (!this.moving) return QUALITY.modest
    clearTimeout(this.settling)
    this.settling = setTimeout(() => {
      this.moving = false
      this.schedule()
    }, SETTLED_MS)
    return QUALITY.draft
  }

  // ------------------------------------------------------------------------------------------- full size

  enlarge() {
    if (this.dialog) {
      this.dialog.close()
      return
    }
    const dialog = (this.dialog = document.createElement('dialog'))
    dialog.className = 'fine-defocus-full'
    const view = this.addView('Close')
    dialog.append(view.root)
    // the editor's own keys are not for here; Escape closes
    dialog.addEventListener('keydown', (event) => event.stopPropagation())
    dialog.addEventListener('close', () => {
      this.views.delete(view)
      view.destroy()
      dialog.remove()
      this.dialog = null
      if (this.root.isConnected) this.view.stage.focus({ preventScroll: true })
    })
    document.body.append(dialog)
    dialog.showModal()
    view.stage.focus()
    this.schedule()
  }
}

/** Give a Focus Point its picker. */
export function addPicker(node) {
  const picker = new Picker(node)
  const after = (name, does) => {
    const original = node[name]
    node[name] = function (...args) {
      const result = original?.apply(this, args)
      does(...args)
      return result
    }
  }
  after('onExecuted', (output) => picker.hear(output))
  after('onConfigure', () => picker.configured())
  after('onConnectionsChange', () => picker.schedule())
  after('onRemoved', () => picker.destroy())
}

/** Let pickers follow a Camera node. */
export function watchCamera(node) {
  const tell = () => cameras.dispatchEvent(new Event('change'))
  for (const widget of node.widgets ?? []) {
    const { callback } = widget
    widget.callback = function (...args) {
      const result = callback?.apply(this, args)
      tell()
      return result
    }
  }
  for (const name of ['onConfigure', 'onConnectionsChange']) {
    const original = node[name]
    node[name] = function (...args) {
      const result = original?.apply(this, args)
      tell()
      return result
    }
  }
}
