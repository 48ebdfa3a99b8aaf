// Elements in one expression, and style sheets added once.

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}

/** An HTML element with attributes and children. */
export const el = (tag, attributes = {}, children = []) => filled(document.createElement(tag), attributes, children)

/** An SVG element with attributes and children. */
export const svg = (tag, attributes = {}, children = []) =>
  filled(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children)

/** Add a style sheet to the page, unless one of this id is there. */
export function addStyle(id, css) {
  if (!document.getElementById(id)) document.head.append(el('style', { id }, [css]))
}
