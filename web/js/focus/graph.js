// What the picker asks of ComfyUI's graph: widgets, links, the camera, the undo history.
import { app } from '../../../../scripts/app.js'

export const CAMERA_NODE = 'FineDefocusCamera'

export const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name)

/** Set a widget as if by hand: `.value` alone tells nobody. */
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

/** Whether the Camera's aperture can be set from here. */
export const apertureIsLinked = (camera) => isLinked(camera, 'aperture') || isLinked(camera, 'f_number')

/** What the last run said, where ComfyUI still has it: a node made anew by undo or a tab does not hear of it. */
export function lastOutput(node) {
  const outputs = app.nodeOutputs ?? {}
  // inside a subgraph a node of the same id may stand outside; just after its making there is only that
  return outputs[`${node.graph?.id}:${node.id}`] ?? outputs[node.id] ?? null
}

/** One step of undo. */
export function rememberStep() {
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker
  if (tracker?.captureCanvasState) tracker.captureCanvasState()
  else tracker?.checkState?.()
}

/** Whether nodes are drawn by Vue. */
export const isVue = () => !!globalThis.LiteGraph?.vueNodesMode

/**
 * The classic canvas does not see what happens over an element: hand on what is its own. Nodes 2.0 does by itself.
 * @param {HTMLElement} root
 * @param {(event: PointerEvent) => boolean} isIts
 */
export function forwardToCanvas(root, isIts) {
  const hand = (name, method, when) =>
    root.addEventListener(name, (event) => {
      if (isVue() || !when(event)) return
      app.canvas[method]?.(event)
      event.preventDefault()
    })
  hand('wheel', 'processMouseWheel', () => true)
  hand('pointerdown', 'processMouseDown', isIts)
  hand('pointermove', 'processMouseMove', isIts)
  hand('pointerup', 'processMouseUp', isIts)
  root.addEventListener('contextmenu', (event) => isVue() || event.preventDefault())
}

/** Where Vue kept the element of the node that this one replaces, put ours: it mounts an element only once. */
export function takePlace(node, root) {
  if (!isVue() || root.isConnected) return
  const stale = document.querySelector(`[data-node-id="${node.id}"] .${root.classList[0]}`)
  stale?.replaceWith(root)
}
