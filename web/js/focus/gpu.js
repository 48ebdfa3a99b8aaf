// The live preview: one WebGL2 context for every Focus Point on the page; each copies the canvas after its draw.
import { discTable } from './disc.js'
import { COVER, LAYERS, LENS, REACH, TILES } from './shaders.js'

const TILE = 16
const PADDED_TO = 16
const STEPS_PER_TAP = 64
/** Scenes whose textures stay in memory. */
const MAX_SCENES = 3
/** Radius of the widest kernel in taps, and the drawn share of the size. */
export const QUALITY = {
  full: { taps: 8, scale: 1 },
  modest: { taps: 3, scale: 0.5 },
  draft: { taps: 2, scale: 0.33 },
}
const SOFTWARE = /swiftshader|llvmpipe|softpipe|software|basic render/i

/**
 * @typedef {object} Scene a picture with its depth; must not change while its textures are in use
 * @property {number} width
 * @property {number} height
 * @property {TexImageSource | Uint8Array} picture sRGB; bytes are RGBA by row
 * @property {Float32Array} inverse 1/m by row, sky 0
 */

/**
 * @typedef {object} Look
 * @property {number} focus inverse focus distance, 1/m
 * @property {number} gain px of blur radius per 1/m
 * @property {number} maxRadius blur radii are capped here, px
 * @property {number} sharpRadius px that still counts as sharp
 * @property {boolean} blur the blurred picture, else the sharp one
 * @property {boolean} zone tint what is not in focus
 * @property {boolean} [spread] the foreground spreads (default), else gathers as TAF Lens does
 * @property {{taps: number, scale: number}} quality
 */

export class Renderer {
  /** Throws without WebGL2 or without float targets. */
  constructor(canvas = document.createElement('canvas')) {
    this.canvas = canvas
    this.scenes = new Map()
    this.gl = canvas.getContext('webgl2', { antialias: false, depth: false })
    if (!this.gl) throw new Error('no WebGL2')
    this.setUp()
  }

  setUp() {
    const { gl } = this
    if (!gl.getExtension('EXT_color_buffer_float')) throw new Error('no float targets')
    const names = gl.getExtension('WEBGL_debug_renderer_info')
    this.software = SOFTWARE.test(gl.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : gl.RENDERER))
    this.programs = Object.fromEntries(
      Object.entries({ LAYERS, TILES, REACH, LENS }).map(([name, code]) => [name, program(gl, code)]),
    )
    this.tables = new Map()
    this.targets = null
    this.scenes.clear()
    gl.disable(gl.DITHER)
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE)
  }

  get lost() {
    return this.gl.isContextLost()
  }

  /**
   * Draw a scene into the renderer's own canvas, at the scale of its quality. At a smaller scale sharp pixels are
   * transparent, so that it can be laid over the sharp picture.
   * @param {Scene} scene
   * @param {Look} look
   * @returns {HTMLCanvasElement} valid until the next draw
   */
  draw(scene, look) {
    const { gl, programs } = this
    const { width, height } = scene
    const { taps, scale } = look.quality
    const { picture, inverse } = this.texturesOf(scene)
    const { layers, tiles, reach, size, tiled } = this.targetsFor(width, height)
    const spread = look.spread ?? true
    const most = Math.min(look.maxRadius, Math.max(width, height))
    const optics = { u_focus: look.focus, u_gain: look.gain, u_size: [width, height] }

    pass(gl, programs.LAYERS, layers.framebuffer, size, {
      ...optics, u_picture: picture, u_inverse: inverse, u_most: most, u_spread: spread,
    })
    const [behind, before, radius] = layers.textures
    if (look.blur) {
      for (const texture of layers.textures) {
        gl.bindTexture(gl.TEXTURE_2D, texture)
        gl.generateMipmap(gl.TEXTURE_2D)
      }
      if (spread) {
        pass(gl, programs.TILES, tiles.framebuffer, tiled, { u_before: before, u_radius: radius, u_tile: TILE })
        pass(gl, programs.REACH, reach.framebuffer, tiled, {
          u_tiles: tiles.textures[0], u_tile: TILE, u_most: most,
        })
      }
    }
    const out = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))]
    if (this.canvas.width !== out[0] || this.canvas.height !== out[1]) {
      ;[this.canvas.width, this.canvas.height] = out
    }
    pass(gl, programs.LENS, null, out, {
      ...optics,
      u_behind: behind,
      u_before: before,
      u_radius: radius,
      u_reach: reach.textures[0],
      u_inverse: inverse,
      u_disc: this.tableFor(taps),
      u_out: out,
      u_tile: TILE,
      u_taps: taps,
      u_perPixel: STEPS_PER_TAP,
      u_sharp: look.sharpRadius,
      u_fullTint: Math.max(0.01 * Math.hypot(width, height), 2 * look.sharpRadius),
      u_spread: spread,
      u_blur: look.blur,
      u_over: scale < 1,
      u_zone: look.zone,
    })
    return this.canvas
  }

  /** Delete a scene's textures. */
  forget(scene) {
    const textures = this.scenes.get(scene)
    if (!textures) return
    for (const texture of Object.values(textures)) this.gl.deleteTexture(texture)
    this.scenes.delete(scene)
  }

  /** Give the context back to the browser. */
  destroy() {
    this.gl.getExtension('WEBGL_lose_context')?.loseContext()
    this.scenes.clear()
  }

  texturesOf(scene) {
    const { gl } = this
    let textures = this.scenes.get(scene)
    if (!textures) {
      const { width, height } = scene
      const inverse = texture(gl, gl.NEAREST)
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.R32F, width, height, 0, gl.RED, gl.FLOAT, scene.inverse)
      const picture = texture(gl, gl.NEAREST)
      if (scene.picture instanceof Uint8Array) {
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, width, height, 0, gl.RGBA, gl.UNSIGNED_BYTE, scene.picture)
      } else {
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, scene.picture)
      }
      textures = { inverse, picture }
    }
    // ordered by last use: the first is the next to be deleted
    this.scenes.delete(scene)
    this.scenes.set(scene, textures)
    if (this.scenes.size > MAX_SCENES) this.forget(this.scenes.keys().next().value)
    return textures
  }

  tableFor(taps) {
    const { gl } = this
    if (!this.tables.has(taps)) {
      const table = discTable(taps + 1, STEPS_PER_TAP)
      this.tables.set(taps, texture(gl, gl.NEAREST))
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, table.length / 4, 1, 0, gl.RGBA, gl.FLOAT, table)
    }
    return this.tables.get(taps)
  }

  targetsFor(width, height) {
    const { gl } = this
    const size = [width, height].map((side) => Math.ceil(side / PADDED_TO) * PADDED_TO)
    if (this.targets?.size.join() !== size.join()) {
      for (const old of this.targets ? [this.targets.layers, this.targets.tiles, this.targets.reach] : []) {
        gl.deleteFramebuffer(old.framebuffer)
        for (const each of old.textures) gl.deleteTexture(each)
      }
      const tiled = size.map((side) => Math.ceil(side / TILE))
      this.targets = {
        size,
        tiled,
        layers: target(gl, size, [gl.RGBA16F, gl.RGBA16F, gl.RG16F], gl.LINEAR_MIPMAP_LINEAR),
        tiles: target(gl, tiled, [gl.R16F], gl.NEAREST),
        reach: target(gl, tiled, [gl.R16F], gl.LINEAR),
      }
    }
    return this.targets
  }
}

function texture(gl, filter) {
  const created = gl.createTexture()
  gl.bindTexture(gl.TEXTURE_2D, created)
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, filter)
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, filter === gl.NEAREST ? gl.NEAREST : gl.LINEAR)
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE)
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE)
  return created
}

function target(gl, [width, height], formats, filter) {
  const framebuffer = gl.createFramebuffer()
  const levels = filter === gl.LINEAR_MIPMAP_LINEAR ? Math.floor(Math.log2(Math.max(width, height))) + 1 : 1
  const textures = formats.map((format, i) => {
    const created = texture(gl, filter)
    gl.texStorage2D(gl.TEXTURE_2D, levels, format, width, height)
    gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer)
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0 + i, gl.TEXTURE_2D, created, 0)
    return created
  })
  gl.drawBuffers(formats.map((_, i) => gl.COLOR_ATTACHMENT0 + i))
  gl.bindFramebuffer(gl.FRAMEBUFFER, null)
  return { framebuffer, textures }
}

function program(gl, fragment) {
  const linked = gl.createProgram()
  for (const [kind, code] of [[gl.VERTEX_SHADER, COVER], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind)
    gl.shaderSource(shader, code)
    gl.compileShader(shader)
    gl.attachShader(linked, shader)
    gl.deleteShader(shader)
  }
  gl.linkProgram(linked)
  if (!gl.getProgramParameter(linked, gl.LINK_STATUS) && !gl.isContextLost()) {
    const [, shader] = gl.getAttachedShaders(linked)
    throw new Error(gl.getProgramInfoLog(linked) + gl.getShaderInfoLog(shader))
  }
  const uniforms = new Map()
  const count = gl.getProgramParameter(linked, gl.ACTIVE_UNIFORMS) ?? 0
  for (let i = 0; i < count; i++) {
    const { name, type } = gl.getActiveUniform(linked, i)
    uniforms.set(name, { type, location: gl.getUniformLocation(linked, name) })
  }
  return { program: linked, uniforms }
}

/** Run a program over a whole target; uniforms by name, textures on units in the order of the uniforms. */
function pass(gl, { program: used, uniforms }, framebuffer, [width, height], values) {
  gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer)
  gl.viewport(0, 0, width, height)
  gl.useProgram(used)
  let unit = 0
  for (const [name, { type, location }] of uniforms) {
    const value = values[name]
    if (type === gl.SAMPLER_2D) {
      gl.activeTexture(gl.TEXTURE0 + unit)
      gl.bindTexture(gl.TEXTURE_2D, value)
      gl.uniform1i(location, unit++)
    } else if (type === gl.INT_VEC2) gl.uniform2iv(location, value)
    else if (type === gl.FLOAT_VEC2) gl.uniform2fv(location, value)
    else if (type === gl.FLOAT) gl.uniform1f(location, value)
    else gl.uniform1i(location, Number(value))
  }
  gl.activeTexture(gl.TEXTURE0)
  gl.drawArrays(gl.TRIANGLES, 0, 3)
}
