/** The two kernels of the page. Both follow addresses, so that the file may be larger than any buffer. */
import grep from "../../grep.wgsl?raw";

/** Adds up how often each byte occurs. A workgroup counts 8 device pages in memory of its own first. */
export const BYTES = /* wgsl */ `
struct Params { file: u32, bytes: u32, counts: u32 }
@group(0) @binding(0) var<uniform> params: Params;

const PAGE_WORDS = 4096u;
const PAGES = 8u;
var<workgroup> seen: array<atomic<u32>, 256>;

@compute @workgroup_size(64)
fn count_bytes(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let words = (params.bytes + 3u) / 4u;
  for (var page = group.x * PAGES; page < (group.x + 1u) * PAGES; page++) {
    let first = page * PAGE_WORDS;
    if (first < words) {
      let span = pm_span(params.file + first, words - first);
      for (var i = lane; i < span.words; i += 64u) {
        let word = pm_span_load_u32(span, i);
        let left = params.bytes - (first + i) * 4u;
        for (var b = 0u; b < min(4u, left); b++) { atomicAdd(&seen[(word >> (8u * b)) & 255u], 1u); }
      }
    }
  }
  workgroupBarrier();
  for (var b = lane; b < 256u; b += 64u) { pm_atomic_add_u32(params.counts + b, atomicLoad(&seen[b])); }
}`;

/** Bytes that one workgroup of {@link BYTES} counts. */
export const BYTES_PER_WORKGROUP = 8 * 16_384;

/** The program of the command line's example: examples/grep.wgsl. */
export const FIND = grep;

/** Bytes that one workgroup of {@link FIND} searches, in 64 pieces. */
export const FIND_PER_WORKGROUP = 64 * 256;
