// One renderer for all Focus Points: made when the first has a picture, given back when the last has gone.
import { Renderer } from './gpu.js'

/** An undo takes every node away and brings it back: the context waits for that. */
const PATIENCE_MS = 1000

class SharedRenderer {
  /** Called when pictures must be drawn again, as after a lost context. */
  users = new Set()
  renderer = null
  /** No WebGL2 here: not asked for again on this page. */
  missing = false

  /** The renderer, or null where there is none or its context is lost for now. */
  get() {
    if (!this.renderer && !this.missing) this.make()
    return this.renderer?.lost ? null : this.renderer
  }

  make() {
    const canvas = document.createElement('canvas')
    try {
      this.renderer = new Renderer(canvas)
    } catch {
      this.missing = true
      return
    }
    const redraw = () => {
      for (const user of this.users) user()
    }
    canvas.addEventListener('webglcontextlost', (event) => {
      if (this.renderer?.canvas !== canvas) return
      event.preventDefault() // else it is never restored
      redraw()
    })
    canvas.addEventListener('webglcontextrestored', () => {
      if (this.renderer?.canvas !== canvas) return
      this.renderer.setUp()
      redraw()
    })
  }

  /** @param {() => void} user */
  join(user) {
    this.users.add(user)
  }

  /** @param {() => void} user */
  leave(user) {
    this.users.delete(user)
    if (this.users.size === 0) setTimeout(() => this.users.size === 0 && this.release(), PATIENCE_MS)
  }

  release() {
    const { renderer } = this
    this.renderer = null
    renderer?.destroy()
  }
}

export const shared = new SharedRenderer()
