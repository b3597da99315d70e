/** Pages that depend on each other. */
import { interleaved, milliseconds } from "./measure.mjs";
import { DEVICE_PAGE, forget, MIB, PAGE_WORDS, PARAMS, same, WORKGROUP, wordsOf } from "./svm-parts.mjs";

const ROUNDS = 7;
const STRAGGLER_INVOCATIONS = 2 ** 20;
const STRAGGLER_PAGES = 64;
const STRAGGLER_APART = 4 * MIB;
const CHASE_PAGES = 1024;

const CHASE = `
struct Params { first: u32, sum: u32 }
${PARAMS}
@compute @workgroup_size(1) fn main() {
  var sum = 0u;
  for (var at = params.first; at != 0u; at = pm_load_u32(at)) { sum += 1u; }
  pm_store_u32(params.sum, sum);
}`;
const STRAGGLER = `
struct Params { first: u32, straggler: u32, sums: u32 }
${PARAMS}
@compute @workgroup_size(${WORKGROUP}) fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * ${WORKGROUP}u + id.x;
  var sum = pm_load_u32(params.sums + i);
  if (i == params.straggler) {
    for (var at = params.first; at != 0u; at = pm_load_u32(at)) { sum += 1u; }
  }
  pm_store_u32(params.sums + i, sum);
}`;

/** Writes a list through device pages: each begins with the address of the next. Returns the address of the first. */
async function link(mapping, pages) {
  const lease = await mapping.lease("rw");
  pages.forEach((page, i) => {
    const next = pages[i + 1];
    lease.u32[page * PAGE_WORDS] = next === undefined ? 0 : mapping.svmAddress + next * PAGE_WORDS;
  });
  lease.release();
  return mapping.svmAddress + pages[0] * PAGE_WORDS;
}

/** Pages that depend on each other, next to each other in memory: in order, and in any order. */
export async function chase(pm, shuffled) {
  const list = await pm.mm.mmap({ length: CHASE_PAGES * DEVICE_PAGE, name: "list" });
  const sum = await pm.mm.mmap({ length: 4, name: "sum" });
  // 5 and 1024 have no divisor in common: the pages come in order of (421 i) modulo 1024, or of i.
  const pages = Array.from({ length: CHASE_PAGES }, (_, i) => (shuffled ? (i * 421) % CHASE_PAGES : i));
  const first = await link(list, pages);
  const kernel = await pm.device.kernel(CHASE, { name: "chase" });
  const { rounds } = await kernel.dispatch({ mm: pm.mm, params: { first, sum: sum.svmAddress }, workgroups: 1 });
  same(await wordsOf(sum), [CHASE_PAGES], "chase");
  return rounds;
}

/** One of a million invocations follows a list through pages that are far from each other. */
export async function straggler(pm) {
  const list = await pm.mm.mmap({ length: STRAGGLER_PAGES * STRAGGLER_APART, name: "list" });
  const sums = await pm.mm.mmap({ length: STRAGGLER_INVOCATIONS * 4, name: "sums" });
  const pages = Array.from({ length: STRAGGLER_PAGES }, (_, i) => (i * STRAGGLER_APART) / DEVICE_PAGE);
  const first = await link(list, pages);
  const kernel = await pm.device.kernel(STRAGGLER, { name: "straggler" });
  const params = { first, straggler: Math.floor(STRAGGLER_INVOCATIONS / 3), sums: sums.svmAddress };
  const dispatch = () => kernel.dispatch({ mm: pm.mm, params, workgroups: [STRAGGLER_INVOCATIONS / WORKGROUP / 4, 4] });
  await dispatch();
  const pieces = pages.map((page) => ({ offset: page * DEVICE_PAGE, length: DEVICE_PAGE }));
  const { ms } = await interleaved(ROUNDS, {
    ms: async () => {
      await forget(list, pieces);
      return milliseconds(dispatch);
    },
  });
  const found = await wordsOf(sums);
  // Each dispatch adds to what the last one left.
  same([found[params.straggler]], [(1 + ROUNDS) * STRAGGLER_PAGES], "straggler");
  return ms;
}
