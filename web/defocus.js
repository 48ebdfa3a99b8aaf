// The pack's only entry on the page: what its nodes show there.
import { app } from '../../scripts/app.js'
import { CAMERA_NODE } from './js/focus/graph.js'
import { addPicker, watchCamera } from './js/focus/picker.js'
import { showMessage } from './js/message.js'

const ours = (node) => node.comfyClass?.startsWith('FineDefocus')

app.registerExtension({
  name: 'fine_defocus',

  nodeCreated(node) {
    if (!ours(node)) return
    if (node.comfyClass === CAMERA_NODE) watchCamera(node)
    if (node.comfyClass === 'FineDefocusFocusPoint') {
      addPicker(node) // which says by itself what the node has to say
      return
    }
    const onExecuted = node.onExecuted
    node.onExecuted = function (output) {
      onExecuted?.apply(this, arguments)
      if (output?.text) showMessage(this, output.text)
    }
    // after a tab switch or an undo the node is a new object and does not hear of the run again
    const onConfigure = node.onConfigure
    node.onConfigure = function () {
      onConfigure?.apply(this, arguments)
      const text = app.nodeOutputs?.[this.id]?.text
      if (text) requestAnimationFrame(() => showMessage(this, text))
    }
  },
})
