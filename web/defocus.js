// The pack's only entry in the browser: messages of its nodes, and the picker of Focus Point.
import { app } from '../../scripts/app.js'
import { CAMERA_NODE, after, lastOutput } from './js/focus/graph.js'
import { addPicker, watchCamera } from './js/focus/picker.js'
import { showMessage } from './js/message.js'

const isOurs = (node) => node.comfyClass?.startsWith('FineDefocus')

app.registerExtension({
  name: 'fine_defocus',

  nodeCreated(node) {
    if (!isOurs(node)) return
    if (node.comfyClass === CAMERA_NODE) watchCamera(node)
    if (node.comfyClass === 'FineDefocusFocusPoint') {
      addPicker(node) // it shows the node's messages itself
      return
    }
    after(node, 'onExecuted', (output) => output?.text && showMessage(node, output.text))
    // a tab switch or an undo creates the node again, and no run is reported to the new one
    after(node, 'onConfigure', () => {
      const text = lastOutput(node)?.text
      if (text) requestAnimationFrame(() => showMessage(node, text))
    })
  },
})
