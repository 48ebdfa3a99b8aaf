// Elements in one line.

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true && name === 'hidden') element.hidden = true
    else element.setAttribute(name, value)
  }
  element.append(...children)
  return element
}

/** An HTML element with attributes and children. */
export const el = (tag, attributes = {}, children = []) => filled(document.createElement(tag), attributes, children)

/** An SVG element with attributes and children. */
export const svg = (tag, attributes = {}, children = []) =>
  filled(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children)
