// Counts how often each byte value occurs.
//
//   pagemirror run examples/histogram.wgsl --map data=FILE --map counts=new:1K --set bytes=$(stat -c %s FILE) \
//     --workgroups 256 --out counts=counts.bin
//
// counts.bin then holds 256 little-endian u32. Any number of workgroups gives the same counts.

struct Params {
  bytes: u32, // length of the data; what lies behind it in the last word is not counted
}

@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<storage, read_write> counts: array<atomic<u32>, 256>;
@group(0) @binding(2) var<uniform> params: Params;

const WORKGROUP: u32 = 256;

// Each workgroup counts for itself first: a few hundred atomic operations on shared memory instead of millions.
var<workgroup> local_counts: array<atomic<u32>, 256>;

@compute @workgroup_size(WORKGROUP)
fn histogram(
  @builtin(global_invocation_id) id: vec3u,
  @builtin(local_invocation_index) lane: u32,
  @builtin(num_workgroups) groups: vec3u,
) {
  let step = groups.x * WORKGROUP;
  let whole_words = params.bytes / 4;
  for (var i = id.x; i < whole_words; i += step) {
    let word = data[i];
    atomicAdd(&local_counts[word & 0xff], 1u);
    atomicAdd(&local_counts[(word >> 8) & 0xff], 1u);
    atomicAdd(&local_counts[(word >> 16) & 0xff], 1u);
    atomicAdd(&local_counts[word >> 24], 1u);
  }
  if (id.x == 0) {
    for (var i = whole_words * 4; i < params.bytes; i++) {
      atomicAdd(&local_counts[(data[i / 4] >> (8 * (i % 4))) & 0xff], 1u);
    }
  }
  workgroupBarrier();
  let count = atomicLoad(&local_counts[lane]);
  if (count > 0) {
    atomicAdd(&counts[lane], count);
  }
}
