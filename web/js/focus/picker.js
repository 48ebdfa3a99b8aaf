// Focus Point in the graph: reads its widgets, draws the preview, and writes the widgets.
import { nudged } from './box.js'
import {
  after,
  apertureIsLinked,
  cameraNodeOf,
  cameraValues,
  forwardToCanvas,
  isLinked,
  lastOutput,
  rememberStep,
  replaceStaleElement,
  setWidget,
  widgetOf,
} from './graph.js'
import { QUALITY } from './gpu.js'
import { MissingFile, loadScene } from './load.js'
import { describe, focusOf, isMeasured, lookOf } from './model.js'
import { ASSUMED, THIRD_STOPS, assumedCamera, cameraFromWidgets, nearestStop } from './optics.js'
import { shared } from './shared.js'
import { tint } from './tint.js'
import { FocusView, otherButton } from './view.js'

const NAME = 'focus_picker'
const SIZE = [400, 680]
const MIN_HEIGHT = 230
const SETTLED_MS = 160
const INVITATION = 'Run the workflow once: the picture appears here. Then click what should be sharp.'
const MISSING = 'The picture of the last run is gone from the server. Run again to see it.'
const NO_CAMERA = 'assumed camera'

/** Reports to all pickers that a Camera node was changed. */
export const cameras = new EventTarget()

const NO_SUMMARY = { focus: 'No picture yet', detail: '' }

/** A Focus Point's state; its views call `move` … `enlarge` for what people do. */
export class Picker {
  constructor(node) {
    this.node = node
    this.scene = this.info = this.frame = this.settling = null
    this.invitation = INVITATION
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
      getMinHeight: () => MIN_HEIGHT,
      getValue: () => '',
      setValue: () => {},
    })
    // for display only: it must never be among the values of a saved workflow
    widget.serialize = false
    for (const name of ['focus_x', 'focus_y', 'range_x', 'range_y', 'sample']) {
      const input = widgetOf(node, name)
      if (input) after(input, 'callback', this.refresh)
    }
    node.setSize?.([Math.max(node.size[0], SIZE[0]), Math.max(node.size[1], SIZE[1])])
    this.schedule()
  }

  addView(enlargeLabel) {
    const view = new FocusView(this, enlargeLabel)
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

  // -------------------------------------------------------------------------------- point and aperture

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

  /**
   * Set a point, or clear the second with null.
   * @param {'point' | 'second'} which
   * @param {boolean} done false while it is still being dragged
   */
  move(which, point, done) {
    const [x, y] = which === 'point' ? ['focus_x', 'focus_y'] : ['range_x', 'range_y']
    setWidget(this.node, x, point?.x ?? -1)
    setWidget(this.node, y, point?.y ?? -1)
    this.changed(done)
  }

  /** Move the point by pixels of the picture, from its present place: the last drawn one may be a frame old. */
  nudge(dx, dy) {
    if (this.scene && !this.locked()) this.move('point', nudged(this.chosen().point, dx, dy, this.info), true)
  }

  stepAperture(by) {
    if (this.scene) this.setAperture(nearestStop(this.camera().camera.f_number) + by, true)
  }

  /** @param {number} stop index of the third stop */
  setAperture(stop, done) {
    const f_number = THIRD_STOPS[Math.min(THIRD_STOPS.length - 1, Math.max(0, stop))]
    const camera = cameraNodeOf(this.node)
    if (camera && apertureIsLinked(camera)) return
    if (camera) {
      setWidget(camera, 'f_number', f_number)
      setWidget(camera, 'aperture', `f/${f_number}`)
    } else this.node.properties.preview_f_number = f_number
    this.changed(done)
  }

  toggle(name) {
    this.node.properties[`preview_${name}`] = !this.option(name)
    this.changed(true)
  }

  option(name) {
    return this.node.properties[`preview_${name}`] ?? name === 'blur'
  }

  compare(on) {
    this.comparing = on
    this.schedule()
  }

  sampleSubject() {
    setWidget(this.node, 'sample', 'subject')
    this.changed(true)
  }

  reset() {
    if (this.locked()) return
    this.move('second', null, false)
    this.move('point', { x: 0.5, y: 0.5 }, true)
  }

  changed(done) {
    this.moving = !done
    this.node.setDirtyCanvas?.(true, false)
    this.schedule()
    if (done) rememberStep()
  }

  // ------------------------------------------------------------------------------------- output of a run

  async onOutput(output) {
    if (!output?.focus_info?.[0]) return
    this.notes = (output.text ?? []).slice(1) // the first is the summary, which the picker shows anyway
    this.loading?.abort()
    const loading = (this.loading = new AbortController())
    try {
      const scene = await loadScene(output, loading.signal)
      if (loading.signal.aborted) return
      this.info = output.focus_info[0]
      this.setScene(scene)
    } catch (error) {
      if (error.name === 'AbortError') return
      this.invitation = error instanceof MissingFile ? MISSING : `The picture cannot be shown: ${error.message}`
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

  /** After a load, an undo or a tab switch: this node is new, and the page may still show the element of the old. */
  configured() {
    const settle = () => {
      // the outputs of a tab are restored a little after its nodes
      const output = lastOutput(this.node)
      if (output && !this.loading) this.onOutput(output)
      replaceStaleElement(this.node, this.root)
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
    // a linked aperture is known only from the last run
    const known = node && !(apertureIsLinked(node) && this.info.camera)
    if (known) return { camera: cameraFromWidgets(cameraValues(node), width, height), source: 'Camera' }
    if (isLinked(this.node, 'camera') && this.info.camera) return { camera: this.info.camera, source: 'of the last run' }
    return { camera: assumedCamera(this.info, this.node.properties.preview_f_number), source: NO_CAMERA }
  }

  draw() {
    const { scene, info } = this
    const chosen = this.chosen()
    const locked = this.locked()
    const renderer = scene && shared.get()
    const state = {
      ...chosen, scene, locked, invitation: this.invitation, summary: NO_SUMMARY, source: '',
      hint: locked ?? '', warning: !!locked,
      f_number: ASSUMED.f_number, stop: nearestStop(ASSUMED.f_number), apertureLocked: false,
      zone: this.option('zone'), blur: this.option('blur'), live: !!renderer, notes: this.notes,
    }
    if (scene) {
      const { camera, source } = this.camera()
      const focus = focusOf(chosen, info, scene)
      const look = lookOf(focus.distance, camera, info, scene)
      const node = cameraNodeOf(this.node)
      Object.assign(state, {
        summary: describe(focus, camera, info),
        f_number: camera.f_number,
        stop: nearestStop(camera.f_number),
        source,
        apertureLocked: node ? apertureIsLinked(node) : source !== NO_CAMERA,
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
      const quality = this.quality(renderer)
      return renderer.draw(this.scene, { ...look, blur: !sharp, zone: zone && !this.comparing, quality })
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

  /** Full on a GPU; in software rendering a draft while something moves, and more taps once it rests. */
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
    // keeps keys from the editor's shortcuts; Escape closes
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
  after(node, 'onExecuted', (output) => picker.onOutput(output))
  after(node, 'onConfigure', () => picker.configured())
  after(node, 'onConnectionsChange', picker.refresh)
  after(node, 'onRemoved', () => picker.destroy())
}

/** Let pickers follow a Camera node. */
export function watchCamera(node) {
  const report = () => cameras.dispatchEvent(new Event('change'))
  for (const widget of node.widgets ?? []) after(widget, 'callback', report)
  for (const name of ['onConfigure', 'onConnectionsChange']) after(node, name, report)
}
