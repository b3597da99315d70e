// The vectors nearest to each of four queries, among more vectors than the device's memory may hold.
//
//   pagemirror run examples/knn.wgsl --device-memory 8M --map vectors=FILE --map queries=QUERIES --map best=new:SIZE \
//     --set vectors=@vectors --set bytes=#vectors --set dims=64 --set queries=@queries --set best=@best \
//     --workgroups COUNT --out best=best.bin
//
// FILE has vectors of `dims` little-endian f32, QUERIES four of them. COUNT is a workgroup for each 64 vectors, and SIZE
// 256 bytes a workgroup: for each query the 8 nearest vectors of the 64, as pairs of number and squared distance, both
// 4 bytes. Who has 8 candidates of each workgroup has the 8 nearest of all among them; examples/knn.ts picks them.

struct Params {
  vectors: u32, // svm address
  bytes: u32,   // of all vectors
  dims: u32,    // numbers a vector, a multiple of 4, at most 1024
  queries: u32, // svm address, at the start of a page
  best: u32,    // svm address
}

@group(0) @binding(0) var<uniform> params: Params;

const WORKGROUP: u32 = 64;
const K: u32 = 8;
const QUERIES: u32 = 4;
const FAR: f32 = 3e38;

// What each invocation found, a component a query.
var<workgroup> distances: array<vec4f, WORKGROUP>;

fn squared(v: vec4f) -> f32 {
  return dot(v, v);
}

fn distances_of(vector: u32) -> vec4f {
  // The queries lie in one page: it is looked up once, and the span indexed from then on.
  let queries = pm_span(params.queries, QUERIES * params.dims);
  var sum = vec4f();
  for (var d = 0u; d < params.dims; d += 4) {
    let v = pm_load_vec4f(vector + d);
    sum += vec4f(
      squared(v - pm_span_load_vec4f(queries, d)),
      squared(v - pm_span_load_vec4f(queries, d + params.dims)),
      squared(v - pm_span_load_vec4f(queries, d + params.dims * 2)),
      squared(v - pm_span_load_vec4f(queries, d + params.dims * 3)),
    );
  }
  return sum;
}

@compute @workgroup_size(WORKGROUP)
fn nearest(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let number = group.x * WORKGROUP + lane;
  var mine = vec4f(FAR);
  if (number < params.bytes / (4 * params.dims)) {
    mine = distances_of(params.vectors + number * params.dims);
  }
  distances[lane] = mine;
  workgroupBarrier();

  // How many of the workgroup's vectors are nearer: a vector among the first K knows its place by that.
  var nearer = vec4u();
  for (var other = 0u; other < WORKGROUP; other++) {
    let theirs = distances[other];
    let first = vec4<bool>(other < lane);
    nearer += vec4u((theirs < mine) | ((theirs == mine) & first));
  }
  for (var query = 0u; query < QUERIES; query++) {
    if (nearer[query] < K) {
      let place = params.best + ((group.x * QUERIES + query) * K + nearer[query]) * 2;
      pm_store_u32(place, number);
      pm_store_f32(place + 1, mine[query]);
    }
  }
}
