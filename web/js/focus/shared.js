// One renderer for all Focus Points: created when the first has a picture, released when the last is removed.
import { Renderer } from './gpu.js'

/** An undo removes every node and adds it again: the context is released only after this time. */
const RELEASE_AFTER_MS = 1000

class SharedRenderer {
  /** Callbacks that draw again, as after a lost context. */
  users = new Set()
  renderer = null
  /** There is no WebGL2: not tried again on this page. */
  missing = false

  /** The renderer; null without WebGL2 or while its context is lost. */
  get() {
    if (!this.renderer && !this.missing) this.create()
    return this.renderer?.lost ? null : this.renderer
  }

  create() {
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
    if (this.users.size === 0) setTimeout(() => this.users.size === 0 && this.release(), RELEASE_AFTER_MS)
  }

  release() {
    const { renderer } = this
    this.renderer = null
    renderer?.destroy()
  }
}

export const shared = new SharedRenderer()
