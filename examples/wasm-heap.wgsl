// Walks a WebAssembly program's linked list of { next, value } by the program's own pointers: adds the values up, and doubles
// each. A pointer counts bytes from the heap's start, an address words from the start of all memory.
struct Params { heap: u32, first: u32, sum: u32 }
@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(1)
fn walk() {
  var sum = 0u;
  var node = params.first;
  while (node != 0u) {
    let at = params.heap + node / 4u;
    let value = pm_load_u32(at + 1u);
    sum += value;
    pm_store_u32(at + 1u, value * 2u);
    node = pm_load_u32(at);
  }
  pm_store_u32(params.sum, sum);
}
