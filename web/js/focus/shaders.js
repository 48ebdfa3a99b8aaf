// The preview's shaders, with the formulas of lens_models: coc_px, the calibrated disc, sRGB, overlay.

const HEAD = `#version 300 es
precision highp float;
precision highp int;
`

export const COVER = `${HEAD}
void main() {
  vec2 corner = vec2(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0);
  gl_Position = vec4(corner, 0.0, 1.0);
}`

/** Picture and inverse depth -> two premultiplied layers in linear light, and the blur radius of each. */
export const LAYERS = `${HEAD}
uniform sampler2D u_picture;   // sRGB
uniform sampler2D u_inverse;   // 1/m
uniform ivec2 u_size;
uniform float u_focus;         // 1/m
uniform float u_gain;          // px of radius per 1/m
uniform float u_most;          // px
uniform bool u_spread;
layout(location = 0) out vec4 behind;
layout(location = 1) out vec4 before;
layout(location = 2) out vec2 radius;

vec3 linear(vec3 srgb) {
  return mix(pow((srgb + 0.055) / 1.055, vec3(2.4)), srgb / 12.92, lessThanEqual(srgb, vec3(0.04045)));
}

void main() {
  // beyond the picture the border replicates
  ivec2 at = min(ivec2(gl_FragCoord.xy), u_size - 1);
  float rho = clamp(u_gain * (u_focus - texelFetch(u_inverse, at, 0).r), -u_most, u_most);
  float near = u_spread ? clamp(-rho - 0.5, 0.0, 1.0) : 0.0;
  vec3 light = linear(texelFetch(u_picture, at, 0).rgb);
  behind = vec4(light, 1.0) * (1.0 - near);
  before = vec4(light, 1.0) * near;
  radius = abs(rho) * vec2(1.0 - near, near);
}`

/** The largest foreground blur in each tile. */
export const TILES = `${HEAD}
uniform sampler2D u_before;
uniform sampler2D u_radius;
uniform int u_tile;
out vec4 largest;
void main() {
  ivec2 from = ivec2(gl_FragCoord.xy) * u_tile;
  ivec2 size = textureSize(u_radius, 0);
  float most = 0.0;
  for (int y = 0; y < u_tile; y++) {
    for (int x = 0; x < u_tile; x++) {
      ivec2 at = min(from + ivec2(x, y), size - 1);
      float near = texelFetch(u_before, at, 0).a;
      if (near > 0.0) most = max(most, texelFetch(u_radius, at, 0).g / near);
    }
  }
  largest = vec4(most);
}`

/** The largest foreground blur that reaches each tile, from any other. */
export const REACH = `${HEAD}
uniform sampler2D u_tiles;
uniform int u_tile;
uniform float u_most;
out vec4 largest;
void main() {
  ivec2 here = ivec2(gl_FragCoord.xy);
  ivec2 size = textureSize(u_tiles, 0);
  int window = int(ceil(u_most / float(u_tile))) + 1;
  float most = 0.0;
  for (int y = -window; y <= window; y++) {
    for (int x = -window; x <= window; x++) {
      ivec2 there = here + ivec2(x, y);
      if (any(lessThan(there, ivec2(0))) || any(greaterThanEqual(there, size))) continue;
      // one tile further, so that interpolation between tiles never falls short
      vec2 gap = max(abs(vec2(x, y)) - 2.0, 0.0) * float(u_tile);
      float radius = texelFetch(u_tiles, there, 0).r;
      if (radius >= length(gap)) most = max(most, radius);
    }
  }
  largest = vec4(most);
}`

/** Loop over the taps under a disc, into `sum`; `body` has each `tap` of the layer, its `uv`, and `far`, in taps. */
const overTaps = (layer, disc, body) => `
  float lod = log2(gap);
  int reach = int(ceil(${disc}.y)) - 1;
  vec4 sum = vec4(0.0);
  for (int y = -reach; y <= reach; y++) for (int x = -reach; x <= reach; x++) {
    float far = length(vec2(x, y));
    if (far >= ${disc}.y) continue;
    vec2 uv = (at + vec2(x, y) * gap) * scale;
    vec4 tap = textureLod(${layer}, uv, lod);
    ${body}
  }`

/** The picture through the lens, or sharp, with or without the tint of what is not in focus; sRGB. */
export const LENS = `${HEAD}
uniform sampler2D u_behind;
uniform sampler2D u_before;
uniform sampler2D u_radius;
uniform sampler2D u_reach;
uniform sampler2D u_inverse;
uniform sampler2D u_disc;
uniform ivec2 u_size;
uniform vec2 u_out;            // size drawn, px
uniform int u_tile;
uniform float u_taps;          // radius of the widest kernel, in taps
uniform float u_perPixel;      // steps of the disc table
uniform float u_focus;
uniform float u_gain;
uniform float u_sharp;         // px of radius that still counts as sharp
uniform float u_fullTint;      // px of radius that shows the full tint
uniform bool u_spread;
uniform bool u_blur;
uniform bool u_zone;
uniform bool u_over;           // sharp pixels transparent, to lie over the sharp picture
out vec4 pixel;

const vec3 NEAR = vec3(1.0, 0.42, 0.10), FAR = vec3(0.16, 0.48, 1.0), SHARP = vec3(0.25, 0.95, 0.40);
const vec3 LUMA = vec3(0.2126, 0.7152, 0.0722);

vec4 disc(float radius) {
  int last = textureSize(u_disc, 0).x - 1;
  return texelFetch(u_disc, ivec2(min(int(radius * u_perPixel + 0.5), last), 0), 0);
}

float weight(vec4 disc, float far) {
  return disc.z * clamp(disc.x - far, 0.0, 1.0) + disc.w * clamp(disc.y - far, 0.0, 1.0);
}

// Radius in taps that are \`gap\` px apart, in a mip of that size, less the mip's own softness.
float inTaps(float radius, float gap) {
  return sqrt(max(radius * radius - (gap * gap - 1.0), 0.0)) / gap;
}

vec3 srgb(vec3 light) {
  light = clamp(light, 0.0, 1.0);
  return mix(1.055 * pow(light, vec3(1.0 / 2.4)) - 0.055, light * 12.92, lessThanEqual(light, vec3(0.0031308)));
}

// The background, or where the foreground hides it, the nearest of it around.
vec4 filled(vec2 uv, out float radius) {
  for (float lod = 0.0; lod < 9.0; lod += 1.0) {
    vec4 around = textureLod(u_behind, uv, lod);
    if (around.a > 0.05) {
      radius = textureLod(u_radius, uv, lod).r / around.a;
      return around / around.a;
    }
  }
  radius = 0.0;
  return vec4(0.0);
}

vec3 behind(vec2 at, vec2 scale) {
  float radius;
  vec4 fill = filled(at * scale, radius);
  float gap = max(radius / u_taps, 1.0);
  vec4 own = disc(inTaps(radius, gap));
  ${overTaps('u_behind', 'own', `
    vec4 kernel = own;
    if (u_spread) {
      if (tap.a < 1e-3) continue;
      // sharp things neither blur into their background nor are covered by its blur
      float tapRadius = textureLod(u_radius, uv, lod).r / tap.a;
      kernel = tapRadius < radius ? disc(inTaps(tapRadius, gap)) : own;
    }
    sum += weight(kernel, far) * tap;`)}
  if (!u_spread) return sum.rgb;
  return mix(fill.rgb, sum.rgb / max(sum.a, 1e-6), smoothstep(0.0, 0.05, sum.a));
}

vec4 before(vec2 at, vec2 scale) {
  float most = texture(u_reach, at / (float(u_tile) * vec2(textureSize(u_reach, 0)))).r;
  if (most < 0.5) return vec4(0.0);
  float gap = max(most / u_taps, 1.0);
  vec4 widest = disc(inTaps(most, gap));
  ${overTaps('u_before', 'widest', `
    if (tap.a < 1e-3) continue;
    float tapRadius = textureLod(u_radius, uv, lod).g / tap.a;
    sum += weight(disc(inTaps(tapRadius, gap)), far) * tap;`)}
  return sum / max(sum.a, 1.0);
}

float coc(ivec2 at) {
  return u_gain * (u_focus - texelFetch(u_inverse, clamp(at, ivec2(0), u_size - 1), 0).r);
}

vec3 tinted(vec3 colour, ivec2 at) {
  float rho = coc(at);
  if (abs(rho) <= u_sharp) return colour;
  for (int y = -1; y <= 1; y++) {
    for (int x = -1; x <= 1; x++) if (abs(coc(at + ivec2(x, y))) <= u_sharp) return SHARP;
  }
  float luma = dot(colour, LUMA);
  float amount = 0.35 + 0.45 * sqrt(clamp((abs(rho) - u_sharp) / (u_fullTint - u_sharp), 0.0, 1.0));
  return mix(vec3(0.8 * luma), (rho < 0.0 ? NEAR : FAR) * (0.25 + 0.75 * luma), amount);
}

void main() {
  vec2 at = vec2(gl_FragCoord.x, u_out.y - gl_FragCoord.y) * (vec2(u_size) / u_out);
  vec2 scale = 1.0 / vec2(textureSize(u_behind, 0));
  vec3 light;
  float veil = 0.0;
  if (u_blur) {
    vec4 front = u_spread ? before(at, scale) : vec4(0.0);
    veil = front.a;
    light = front.rgb + (1.0 - front.a) * behind(at, scale);
  } else {
    light = textureLod(u_behind, at * scale, 0.0).rgb + textureLod(u_before, at * scale, 0.0).rgb;
  }
  vec3 colour = srgb(light);
  if (u_zone) colour = tinted(colour, ivec2(at));
  float own = abs(coc(ivec2(at)));
  float changed = max(u_blur ? smoothstep(0.4, 1.0, own) : 0.0, u_zone ? step(u_sharp, own) : 0.0);
  pixel = vec4(colour, 1.0) * (u_over ? max(changed, min(4.0 * veil, 1.0)) : 1.0);
}`
