// Access to ComfyUI's graph: widgets, links, the camera, callbacks, the undo history.
import { app } from '../../../../scripts/app.js'

export const CAMERA_NODE = 'FineDefocusCamera'

/** Call `action` after a method of an object, with the same arguments. */
export function after(object, name, action) {
  const original = object[name]
  object[name] = function (...args) {
    const result = original?.apply(this, args)
    action(...args)
    return result
  }
}

export const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name)

/** Set a widget as if by hand: setting `.value` alone would not call its callback. */
export function setWidget(node, name, value) {
  const widget = widgetOf(node, name)
  if (!widget || widget.value === value) return
  widget.value = value
  widget.callback?.(value, app.canvas, node)
}

/** Whether a widget's value comes through a link. */
export const isLinked = (node, name) => node.inputs?.some((input) => input.name === name && input.link != null)

function origin(node, name) {
  const id = node.inputs?.find((input) => input.name === name)?.link
  if (id == null) return null
  const link = node.graph?.getLink?.(id) ?? node.graph?.links?.[id]
  return link ? node.graph.getNodeById(link.origin_id) : null
}

/** The Camera node that is connected, also through reroutes; null where it is another node, or none. */
export function cameraNodeOf(node) {
  let source = origin(node, 'camera')
  for (let hops = 0; source?.type === 'Reroute' && hops < 20; hops++) source = origin(source, source.inputs[0].name)
  return source?.comfyClass === CAMERA_NODE ? source : null
}

/** The Camera node's widgets by name. */
export const cameraValues = (camera) => Object.fromEntries(camera.widgets.map(({ name, value }) => [name, value]))

/** Whether the Camera's aperture comes through a link, and so cannot be set here. */
export const apertureIsLinked = (camera) => isLinked(camera, 'aperture') || isLinked(camera, 'f_number')

/** The output of the last run, if ComfyUI still has it: a node created by undo or a tab switch gets no report of it. */
export function lastOutput(node) {
  const outputs = app.nodeOutputs ?? {}
  // a subgraph's node may share its id with one outside; right after its creation only the bare id is known
  return outputs[`${node.graph?.id}:${node.id}`] ?? outputs[node.id] ?? null
}

/** Record one step of undo. */
export function rememberStep() {
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker
  if (tracker?.captureCanvasState) tracker.captureCanvasState()
  else tracker?.checkState?.()
}

/** Whether nodes are drawn by Vue. */
export const isVue = () => !!globalThis.LiteGraph?.vueNodesMode

/**
 * Forward events that are the canvas's own: the classic canvas gets none that happen over an element. Nodes 2.0 does
 * this by itself.
 * @param {HTMLElement} root
 * @param {(event: PointerEvent) => boolean} isCanvas whether the canvas handles an event
 */
export function forwardToCanvas(root, isCanvas) {
  const forward = (name, method, when) =>
    root.addEventListener(name, (event) => {
      if (isVue() || !when(event)) return
      app.canvas[method]?.(event)
      event.preventDefault()
    })
  forward('wheel', 'processMouseWheel', () => true)
  forward('pointerdown', 'processMouseDown', isCanvas)
  forward('pointermove', 'processMouseMove', isCanvas)
  forward('pointerup', 'processMouseUp', isCanvas)
  root.addEventListener('contextmenu', (event) => isVue() || event.preventDefault())
}

/** Replace the element of the node's predecessor, which Vue still shows: it mounts an element only once. */
export function replaceStaleElement(node, root) {
  if (!isVue() || root.isConnected) return
  const stale = document.querySelector(`[data-node-id="${node.id}"] .${root.classList[0]}`)
  stale?.replaceWith(root)
}
