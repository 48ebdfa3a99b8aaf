// Picture and depth of the last run, from ComfyUI's temporary files.
import { api } from '../../../../scripts/api.js'
import { unpackDepth } from './depth.js'

const AS_IT_IS = { colorSpaceConversion: 'none', premultiplyAlpha: 'none' }

/** A run's temporary file is no longer on the server, as after a restart. */
export class MissingFile extends Error {}

async function bitmap({ filename, subfolder, type }, signal) {
  const response = await api.fetchApi(`/view?${new URLSearchParams({ filename, subfolder, type })}`, { signal })
  if (!response.ok) throw new MissingFile(filename)
  return createImageBitmap(await response.blob(), AS_IT_IS)
}

function pixels(image) {
  const canvas = document.createElement('canvas')
  Object.assign(canvas, { width: image.width, height: image.height })
  const context = canvas.getContext('2d', { willReadFrequently: true })
  context.drawImage(image, 0, 0)
  return context.getImageData(0, 0, image.width, image.height).data
}

/**
 * @param {object} output what the node sent: focus_preview, focus_depth, focus_info
 * @returns the scene: width, height, picture (ImageBitmap), inverse, measured
 */
export async function loadScene({ focus_preview, focus_depth, focus_info }, signal) {
  const [picture, codes] = await Promise.all([bitmap(focus_preview[0], signal), bitmap(focus_depth[0], signal)])
  const { near_m, far_m } = focus_info[0]
  const depth = unpackDepth(pixels(codes), codes.width, codes.height, near_m, far_m)
  codes.close()
  return { ...depth, picture }
}
