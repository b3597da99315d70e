// Finds every place where a byte string occurs.
//
//   printf %s 'needle' > needle.bin
//   pagemirror run examples/search.wgsl --map data=FILE --map needle=needle.bin --map found=new:4K \
//     --set bytes=$(stat -c %s FILE) --set needle_bytes=6 --workgroups 256 --out found=found.bin
//
// found.bin then holds the number of matches, a little-endian u32, and behind it the byte offsets of the first ones to be
// found, as many as fit, in no order. Matches may overlap.

struct Params {
  bytes: u32,        // length of the data
  needle_bytes: u32, // length of the byte string, at least 1
}

struct Found {
  count: atomic<u32>,
  offsets: array<u32>,
}

@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<storage, read> needle: array<u32>;
@group(0) @binding(2) var<storage, read_write> found: Found;
@group(0) @binding(3) var<uniform> params: Params;

const WORKGROUP: u32 = 256;

fn data_byte(i: u32) -> u32 {
  return (data[i / 4] >> (8 * (i % 4))) & 0xff;
}

fn needle_byte(i: u32) -> u32 {
  return (needle[i / 4] >> (8 * (i % 4))) & 0xff;
}

fn matches_after_first(start: u32) -> bool {
  for (var i = 1u; i < params.needle_bytes; i++) {
    if (data_byte(start + i) != needle_byte(i)) {
      return false;
    }
  }
  return true;
}

fn report_match(start: u32) {
  let place = atomicAdd(&found.count, 1u);
  if (place < arrayLength(&found.offsets)) {
    found.offsets[place] = start;
  }
}

@compute @workgroup_size(WORKGROUP)
fn search(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  if (params.needle_bytes == 0 || params.needle_bytes > params.bytes) {
    return;
  }
  let starts = params.bytes - params.needle_bytes + 1;
  let step = groups.x * WORKGROUP;
  let first_byte = needle_byte(0);
  let in_each_byte = first_byte * 0x01010101;
  // One word of the data an invocation and step: four places where a match can start.
  for (var word = id.x; word < (starts + 3) / 4; word += step) {
    // A byte of `different` is 0 where the first byte fits; the test for "any byte is 0" passes few words on.
    let different = data[word] ^ in_each_byte;
    if (((different - 0x01010101) & ~different & 0x80808080) == 0) {
      continue;
    }
    for (var start = word * 4; start < min(word * 4 + 4, starts); start++) {
      if (data_byte(start) == first_byte && matches_after_first(start)) {
        report_match(start);
      }
    }
  }
}
