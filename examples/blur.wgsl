// Blurs an RGBA image: each pixel becomes the mean of the square of pixels around it, the edge repeated outwards.
// examples/blur.ts runs it over a PNG file.

struct Params {
  size: vec2u,  // width and height in pixels
  radius: u32,  // the square is 2 * radius + 1 pixels wide
}

// One u32 a pixel: red in the lowest byte, then green, blue, alpha.
@group(0) @binding(0) var<storage, read> source: array<u32>;
@group(0) @binding(1) var<storage, read_write> target_image: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

fn channels(pixel: u32) -> vec4u {
  return (vec4u(pixel) >> vec4u(0, 8, 16, 24)) & vec4u(0xff);
}

@compute @workgroup_size(8, 8)
fn blur(@builtin(global_invocation_id) id: vec3u) {
  if (any(id.xy >= params.size)) {
    return;
  }
  let radius = i32(params.radius);
  let last = vec2i(params.size) - 1;
  var sum = vec4u(0);
  for (var dy = -radius; dy <= radius; dy++) {
    for (var dx = -radius; dx <= radius; dx++) {
      let at = clamp(vec2i(id.xy) + vec2i(dx, dy), vec2i(0), last);
      sum += channels(source[u32(at.y) * params.size.x + u32(at.x)]);
    }
  }
  let count = (2 * params.radius + 1) * (2 * params.radius + 1);
  let mean = (sum + count / 2) / count;
  target_image[id.y * params.size.x + id.x] = mean.r | (mean.g << 8) | (mean.b << 16) | (mean.a << 24);
}
