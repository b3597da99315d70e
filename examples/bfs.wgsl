// One level of a breadth-first search: every node of the level marks the nodes that its edges lead to.
//
// The graph is a file of little-endian u32: the number of nodes n, the number of edges, n + 1 places where the edges of
// each node begin, then where each edge leads. examples/bfs.ts runs this kernel once a level, until no node is left.

struct Params {
  graph: u32,   // svm address
  depths: u32,  // svm address: the level of each node, 0xffffffff for one that was not met
  level: u32,
  reached: u32, // svm address: gets the number of nodes on this level added
}

@group(0) @binding(0) var<uniform> params: Params;

const HEADER: u32 = 2;

@compute @workgroup_size(64)
fn expand(@builtin(global_invocation_id) id: vec3u) {
  let node = id.x;
  let nodes = pm_load_u32(params.graph);
  if (node >= nodes || pm_load_u32(params.depths + node) != params.level) {
    return;
  }
  let begins = params.graph + HEADER;
  let edges = begins + nodes + 1;
  let end = pm_load_u32(begins + node + 1);
  for (var edge = pm_load_u32(begins + node); edge < end; edge++) {
    // Another node of this level may have met it already: then nothing changes.
    pm_atomic_min_u32(params.depths + pm_load_u32(edges + edge), params.level + 1);
  }
  pm_atomic_add_u32(params.reached, 1u);
}
