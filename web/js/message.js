// The messages of a node's last run, under its widgets: a summary, and warnings that start with ⚠.
import { addStyle, el } from './elements.js'

const NAME = 'fine_defocus_message'
const LINE_PX = 17
const PADDING_PX = 8
const MARGIN_PX = 4
const STYLE = `
.fine-defocus-message { box-sizing: border-box; width: 100%; padding: ${PADDING_PX / 2}px 8px; overflow: hidden auto;
  font: 11px/${LINE_PX}px sans-serif; color: var(--descrip-text, #999); user-select: text }
.fine-defocus-message p { margin: 0; overflow-wrap: anywhere }
.fine-defocus-message .warning { color: #e8b339 }
`

const height = (rows) => rows * LINE_PX + PADDING_PX + 2 * MARGIN_PX

function addWidget(node) {
  addStyle(NAME, STYLE)
  const widget = node.addDOMWidget(NAME, NAME, el('div', { class: 'fine-defocus-message', role: 'status' }), {
    serialize: false,
    hideOnZoom: false,
    margin: MARGIN_PX,
    getMinHeight: () => widget?.wanted ?? height(1),
    getMaxHeight: () => widget?.wanted ?? height(1),
  })
  // for display only: it must never be among the values of a saved workflow
  widget.serialize = false
  return widget
}

/** Show lines of text at the foot of a node, instead of those of an earlier run. */
export function showMessage(node, lines) {
  const widget = node.widgets?.find((w) => w.name === NAME) ?? addWidget(node)
  const paragraphs = lines
    .flatMap((text) => text.split('\n'))
    .map((line) => el('p', line.startsWith('⚠') ? { class: 'warning' } : {}, [line]))
  widget.element.replaceChildren(...paragraphs)
  // estimated rows: measuring wrapped text needs a laid-out node, which a hidden tab does not have
  const perRow = Math.max(16, (node.size[0] - 40) / 5.5)
  const rows = paragraphs.reduce((sum, p) => sum + Math.ceil(p.textContent.length / perRow), 0)
  widget.wanted = height(rows)
  const [least, tall] = node.computeSize()
  node.setSize([Math.max(node.size[0], least), Math.max(node.size[1], tall)])
  node.setDirtyCanvas?.(true, true)
}
