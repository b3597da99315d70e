// Looks keys up in a B+tree in a file, by its pointers: only the nodes on the way are brought to the device.
//
//   pagemirror run examples/btree.wgsl --map tree=FILE --map keys=KEYS --map values=new:SIZE \
//     --set tree=@tree --set keys=@keys --set bytes=#keys --set values=@values --workgroups COUNT --out values=values.bin
//
// KEYS has the keys to look up, little-endian u32; values.bin then has the value of each, 0xffffffff where there is none.
// SIZE is that of KEYS, COUNT a workgroup for each 64 keys.
//
// The file is made of nodes of 4 KiB, 1024 words: word 0 is the number of keys, word 1 is 1 in a leaf, the keys begin at
// word 2, in order. From word 512 on a leaf has the value of each key, another node the places of its children in the
// file, in words, one more than it has keys: child i has the keys below key i, and from key i - 1 on. The first node is
// the header: its word 2 is the place of the root.

struct Params {
  tree: u32,   // svm address
  keys: u32,   // svm address
  bytes: u32,  // of the keys
  values: u32, // svm address
}

@group(0) @binding(0) var<uniform> params: Params;

const ROOT: u32 = 2;
const KEYS: u32 = 2;
const CHILDREN: u32 = 512;
const NONE: u32 = 0xffffffff;
// More levels than any tree has that a u32 can address: a broken file cannot lead in circles.
const MOST_LEVELS: u32 = 32;

// How many of a node's keys are not above the key.
fn keys_up_to(node: u32, count: u32, key: u32) -> u32 {
  var low = 0u;
  var high = count;
  while (low < high) {
    let middle = (low + high) / 2;
    if (pm_load_u32(node + KEYS + middle) <= key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

fn value_of(key: u32) -> u32 {
  var node = params.tree + pm_load_u32(params.tree + ROOT);
  for (var level = 0u; level < MOST_LEVELS; level++) {
    let count = min(pm_load_u32(node), CHILDREN - KEYS);
    let at = keys_up_to(node, count, key);
    if (pm_load_u32(node + 1) != 0) {
      if (at > 0 && pm_load_u32(node + KEYS + at - 1) == key) {
        return pm_load_u32(node + CHILDREN + at - 1);
      }
      return NONE;
    }
    node = params.tree + pm_load_u32(node + CHILDREN + at);
  }
  return NONE;
}

@compute @workgroup_size(64)
fn lookup(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.bytes / 4) {
    pm_store_u32(params.values + id.x, value_of(pm_load_u32(params.keys + id.x)));
  }
}
