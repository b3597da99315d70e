/** What kernels report: faults, fatal accesses, accessed pages; and how the edges of pages and mappings behave. */
import { expect, test } from "vitest";
import { useTestGpu } from "../../../testing/gpu.ts";
import { seededRandom } from "../../../testing/seeded-random.ts";
import { checkSvm } from "../../../testing/svm-check.ts";
import { type PageMapping, SvmHost } from "../../../testing/svm-host.ts";
import type { SvmRunOptions } from "../../../testing/svm-host-window.ts";
import { compileSvmKernel } from "./compile-svm.ts";
import { Fatal } from "./control-layout.ts";

const gpu = useTestGpu("svm faults");

const P = 4096;
const WHOLE: PageMapping = { readable: 15, writable: 15 };
const HALF: PageMapping = { readable: 3, writable: 3 };
/** Read-only, writable, a hole, read-only. */
const MIXED: PageMapping = { readable: 0b1011, writable: 0b0010 };

const at = (words: Uint32Array, i: number): number => words[i] ?? 0;

const SPECIAL: Readonly<Record<number, PageMapping>> = { 2: { readable: 15, writable: 0 }, 3: HALF, 8: MIXED };

/** Runs one invocation; page 2 is read-only, page 3 has two CPU pages, page 5 is not mapped, page 8 is {@link MIXED}. */
async function runOne(
  body: string,
  options: Partial<SvmRunOptions> & { readonly resident?: number } = {},
): Promise<{ readonly fatal: unknown; readonly words: Uint32Array; readonly rounds: number }> {
  const kernel = await compileSvmKernel(
    gpu(),
    `@compute @workgroup_size(1) fn main(@builtin(workgroup_id) wg: vec3u) { ${body} }`,
  );
  const host = new SvmHost(gpu(), {
    pages: 10,
    random: seededRandom(11),
    mapping: (page) => (page === 5 ? undefined : (SPECIAL[page] ?? WHOLE)),
  });
  try {
    host.makeResident(options.resident ?? (options.pipeline === "resident" ? 1 : 0));
    const { fatal, rounds } = await host.run(kernel, { grid: [1, 1, 1], ...options });
    return { fatal, rounds, words: (await host.settle()).slice() };
  } finally {
    host.destroy();
  }
}

const FATAL: readonly (readonly [string, string, number, number])[] = [
  ["a load outside every mapping", "pm_store_u32(4096u, pm_load_u32(5u * 4096u + 3u));", Fatal.ReadUnmapped, 5 * P + 3],
  ["a load of address 0", "pm_store_u32(4096u, pm_load_u32(0u));", Fatal.ReadUnmapped, 0],
  ["a load past the table", "pm_store_u32(4096u, pm_load_u32(0xfffffff0u));", Fatal.ReadUnmapped, 0xfffffff0],
  [
    "a load past the end of a mapping",
    "pm_store_u32(4096u, pm_load_u32(3u * 4096u + 2048u));",
    Fatal.ReadUnmapped,
    3 * P + 2048,
  ],
  ["a store outside every mapping", "pm_store_u32(5u * 4096u, 1u);", Fatal.WriteUnmapped, 5 * P],
  ["a store past the end of a mapping", "pm_store_u32(3u * 4096u + 2050u, 1u);", Fatal.WriteUnmapped, 3 * P + 2050],
  ["a store to read-only memory", "pm_store_u32(2u * 4096u + 9u, 1u);", Fatal.WriteReadOnly, 2 * P + 9],
  ["an atomic on read-only memory", "pm_atomic_add_u32(2u * 4096u + 8u, 1u);", Fatal.WriteReadOnly, 2 * P + 8],
  [
    "an atomic with a result, outside",
    "pm_store_u32(4096u, pm_atomic_add_u32(5u * 4096u + 8u, 1u));",
    Fatal.WriteUnmapped,
    5 * P + 8,
  ],
  [
    "a vector that runs out of a mapping",
    "pm_store_vec4u(4096u, pm_load_vec4u(5u * 4096u - 2u));",
    Fatal.ReadUnmapped,
    5 * P,
  ],
  [
    "a span outside every mapping",
    "let s = pm_span(5u * 4096u + 4u, 8u); pm_store_u32(4096u, pm_span_load_u32(s, 0u));",
    Fatal.ReadUnmapped,
    5 * P + 4,
  ],
  [
    "an index past a span",
    "let s = pm_span(4096u + 4u, 8u); pm_store_u32(4096u, pm_span_load_u32(s, 8u));",
    Fatal.SpanIndex,
    P + 4,
  ],
  ["a store past a span", "let s = pm_span(4096u + 4u, 8u); pm_span_store_u32(s, 9u, 1u);", Fatal.SpanIndex, P + 4],
  [
    "a vector that runs out of a span",
    "let s = pm_span(4096u + 4u, 8u); pm_store_vec4u(4096u, pm_span_load_vec4u(s, 5u));",
    Fatal.SpanIndex,
    P + 4,
  ],
  [
    "a store through a span of read-only memory",
    "let s = pm_span(2u * 4096u + 4u, 8u); pm_span_store_u32(s, 1u, 1u);",
    Fatal.WriteReadOnly,
    2 * P + 5,
  ],
  ["a load in a hole", "pm_store_u32(4096u, pm_load_u32(8u * 4096u + 2049u));", Fatal.ReadUnmapped, 8 * P + 2049],
  ["a store in a hole", "pm_store_u32(8u * 4096u + 3071u, 1u);", Fatal.WriteUnmapped, 8 * P + 3071],
  ["a store before what may be written", "pm_store_u32(8u * 4096u + 1023u, 1u);", Fatal.WriteReadOnly, 8 * P + 1023],
  ["a store after what may be written", "pm_store_u32(8u * 4096u + 3072u, 1u);", Fatal.WriteReadOnly, 8 * P + 3072],
  ["an atomic in a hole", "pm_atomic_or_u32(8u * 4096u + 2048u, 1u);", Fatal.WriteUnmapped, 8 * P + 2048],
  [
    "a vector that runs into a hole",
    "pm_store_vec4u(4096u, pm_load_vec4u(8u * 4096u + 2045u));",
    Fatal.ReadUnmapped,
    8 * P + 2048,
  ],
  [
    "a vector that begins in a hole",
    "pm_store_vec4u(4096u, pm_load_vec4u(8u * 4096u + 3070u));",
    Fatal.ReadUnmapped,
    8 * P + 3070,
  ],
  [
    "a vector that is stored over the end of what may be written",
    "pm_store_vec4u(8u * 4096u + 2046u, vec4u(1u));",
    Fatal.WriteUnmapped,
    8 * P + 2048,
  ],
  [
    "a span that is stored to past what may be written",
    "let s = pm_span(8u * 4096u, 2048u); pm_span_store_u32(s, 1024u, 1u); pm_span_store_u32(s, 1023u, 1u);",
    Fatal.WriteReadOnly,
    8 * P + 1023,
  ],
  [
    "an index past a span that ends at a hole",
    "let s = pm_span(8u * 4096u + 5u, 4000u); pm_store_u32(4096u, pm_span_load_u32(s, 2043u));",
    Fatal.SpanIndex,
    8 * P + 5,
  ],
];

test.each(FATAL)("%s ends the dispatch and names the address", async (_, body, code, address) => {
  for (const pipeline of ["checked", "resident", "resident-linear"] as const) {
    for (const resident of pipeline === "checked" ? [0, 1] : [1]) {
      const { fatal, words } = await runOne(`if (wg.x == 2u) { ${body} }`, { grid: [4, 1, 1], pipeline, resident });
      expect(fatal, pipeline).toEqual({ code, address, workgroup: 2, lane: 0 });
      if (pipeline === "checked") {
        expect(words.every((word) => word === 0)).toBe(true);
      }
    }
  }
});

/** Loops that would never end over zeros; each comes to an address that cannot be read, 5 * P + 3 or past a span. */
const SPINS: readonly (readonly [
  string,
  string,
  { readonly head?: string; readonly code?: number; readonly address?: number },
])[] = [
  ["that waits for a word", "while (pm_load_u32(5u * 4096u + 3u) == 0u) { }", {}],
  [
    "without memory, over what was loaded",
    "var x = pm_load_u32(5u * 4096u + 3u); loop { if ((x & 1u) == 1u) { break; } x >>= 1u; }",
    {},
  ],
  [
    "in a function that only returns in it",
    "pm_store_u32(4096u, list(5u * 4096u + 3u));",
    {
      head: "fn list(first: u32) -> u32 { var at = first; loop { if (pm_load_u32(at) != 0u) { return at; } } }",
    },
  ],
  ["that walks by vectors", "for (var i = 0u; i < 2u; i += pm_load_vec4u(5u * 4096u + 3u).x) { }", {}],
  [
    "that takes a lock",
    "loop { if (pm_atomic_compare_exchange_u32(5u * 4096u + 3u, 1u, 2u).exchanged) { break; } }",
    {
      code: Fatal.WriteUnmapped,
    },
  ],
  [
    "past a span",
    "let s = pm_span(4096u + 4u, 8u); while (pm_span_load_u32(s, 9u) == 0u) { }",
    {
      code: Fatal.SpanIndex,
      address: P + 4,
    },
  ],
  [
    "whose workgroup goes on together",
    `loop {
      if (lane == 0u) { found = pm_load_u32(5u * 4096u + 3u); }
      if (workgroupUniformLoad(&found) != 0u) { break; }
    }`,
    { head: "var<workgroup> found: u32;" },
  ],
  [
    "over what another invocation has loaded",
    `if (lane == 0u) { found = pm_load_u32(5u * 4096u + 3u); }
    workgroupBarrier();
    var x = found;
    while ((x & 1u) == 0u) { x >>= 1u; }`,
    { head: "var<workgroup> found: u32;" },
  ],
];

test.each(SPINS)("a loop %s ends in every pipeline", async (_, body, wanted) => {
  const { head = "", code = Fatal.ReadUnmapped, address = 5 * P + 3 } = wanted;
  const kernel = await compileSvmKernel(
    gpu(),
    `${head}
@compute @workgroup_size(4) fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  if (wg.x == 2u) { ${body} }
}`,
  );
  const alone = kernel.doneBits && kernel.replayRecords === 0 ? (["quick", "guarded"] as const) : [];
  const resumed = typeof (await kernel.resuming()) === "string" ? [] : (["resuming"] as const);
  for (const pipeline of ["checked", "resident", "resident-linear", ...alone, ...resumed] as const) {
    const host = new SvmHost(gpu(), { pages: 10, mapping: (page) => (page === 5 ? undefined : WHOLE) });
    try {
      host.makeResident(1);
      const { fatal } = await host.run(kernel, { grid: [4, 1, 1], pipeline });
      expect(fatal, pipeline).toMatchObject({ code, address, workgroup: 2 });
    } finally {
      host.destroy();
    }
  }
});

test("each CPU page of a device page is what its mapping says", async () => {
  const c = {
    wgsl: `@compute @workgroup_size(16) fn main(@builtin(global_invocation_id) id: vec3u) {
      let page = 3u * 4096u;
      let i = id.x;
      let first = pm_load_u32(page + i) + pm_load_u32(page + 3072u + i * 2u);
      let s = pm_span(page + 1000u, 3000u);
      pm_store_u32(page + 1024u + i, first ^ pm_load_u32(page + 2047u));
      pm_store_vec4u(page + 1600u + 4u * i, pm_load_vec4u(page + 1020u - i));
      pm_atomic_add_u32(page + 1500u, s.words + pm_span_load_u32(s, 20u));
      pm_store_u32(page + 8192u + i, pm_span_load_u32(pm_span(page + 4000u, 9000u), i));
    }`,
    mapping: (page: number) => (page === 3 ? MIXED : WHOLE),
    grid: [2, 1, 1] as const,
    model: (w: Uint32Array) => {
      const page = 3 * P;
      for (let i = 0; i < 32; i++) {
        w[page + 1024 + i] = (at(w, page + i) + at(w, page + 3072 + i * 2)) ^ at(w, page + 2047);
        w.copyWithin(page + 1600 + 4 * i, page + 1020 - i, page + 1024 - i);
        w[page + 1500] = at(w, page + 1500) + 1048 + at(w, page + 1020);
        w[page + 8192 + i] = at(w, page + 4000 + i);
      }
    },
  };
  await checkSvm(gpu(), c);
  await checkSvm(gpu(), { ...c, residency: 0, pipelines: ["checked", "quick"] });
});

test("what an invocation does after a fault is not held against it", async () => {
  // Address 0 is what a missing pointer reads as; the end of the run finds no mapping behind it.
  const { fatal, words, rounds } = await runOne(
    `
    let p = pm_load_u32(4096u);
    let q = pm_load_u32(p);
    pm_store_u32(6u * 4096u, q + pm_load_u32(select(0xffffff00u, 7u * 4096u, p == 0u)));
    pm_store_u32(q, 3u);
    pm_store_u32(4u * 4096u, 1u);`,
    { pagesPerRound: 8 },
  ).catch((error: unknown) => ({ fatal: error, words: new Uint32Array(), rounds: 0 }));
  // In the end there is a null pointer in memory itself.
  expect(fatal).toEqual({ code: Fatal.ReadUnmapped, address: 0, workgroup: 0, lane: 0 });
  expect(rounds).toBe(2);
  expect(words.every((word) => word === 0)).toBe(true);
});

test("a chain of pointers through missing pages is followed", async () => {
  await checkSvm(gpu(), {
    pages: 16,
    wgsl: `@compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3u) {
      var p = 4096u + id.x;
      for (var hops = 0u; hops < 12u; hops++) { p = pm_load_u32(p); }
      pm_store_u32(15u * 4096u + id.x, p);
    }`,
    grid: [8, 1, 1],
    initial: (i) => P + ((i * 1021 + 77) % (14 * P)),
    residency: 0,
    model: (w) => {
      for (let id = 0; id < 32; id++) {
        let p = P + id;
        for (let hops = 0; hops < 12; hops++) {
          p = at(w, p);
        }
        w[15 * P + id] = p;
      }
    },
  });
});

test("one run reports every page that it comes to", async () => {
  const kernel = await compileSvmKernel(
    gpu(),
    `@compute @workgroup_size(1) fn main() {
      for (var k = 1u; k < 31u; k++) { pm_store_u32(32u * 4096u + k, pm_load_u32(k * 4096u)); }
    }`,
  );
  const host = new SvmHost(gpu(), { pages: 40, random: seededRandom(1) });
  const { rounds, firstFaults } = await host.run(kernel, { grid: [1, 1, 1], pagesPerRound: 100 });
  expect(rounds).toBe(2);
  expect(firstFaults.toSorted((a, b) => a - b)).toEqual([-32, ...Array.from({ length: 30 }, (_, i) => i + 1)]);
  host.destroy();
});

test("faults that find no room in the list wait for a later round", async () => {
  const results = await checkSvm(gpu(), {
    pages: 40,
    wgsl: `@compute @workgroup_size(32) fn main(@builtin(global_invocation_id) id: vec3u) {
      pm_store_u32(4096u + id.x, pm_load_u32((id.x % 32u + 3u) * 4096u + id.x));
    }`,
    grid: [2, 1, 1],
    residency: 0,
    options: { faultCapacity: 5, pagesPerRound: 5, evict: 0 },
    pipelines: ["checked"],
    seeds: [1],
    model: (w) => {
      for (let id = 0; id < 64; id++) {
        w[P + id] = at(w, ((id % 32) + 3) * P + id);
      }
    },
  });
  expect(results.map(({ rounds }) => rounds)).toEqual([8]);
});

test("vectors at any address, over ends of pages too", async () => {
  await checkSvm(gpu(), {
    wgsl: `@compute @workgroup_size(16) fn main(@builtin(global_invocation_id) id: vec3u) {
      let v = pm_load_vec4u(2u * 4096u - 20u + id.x);
      pm_store_vec4f(5u * 4096u - 34u + 5u * id.x, bitcast<vec4f>(v));
      pm_store_i32(6u * 4096u + id.x, dot(pm_load_vec4i(3u * 4096u + id.x * 8u), vec4i(1)));
    }`,
    grid: [2, 1, 1],
    initial: (i) => i,
    model: (w) => {
      for (let id = 0; id < 32; id++) {
        w.copyWithin(5 * P - 34 + 5 * id, 2 * P - 20 + id, 2 * P - 16 + id);
        w[6 * P + id] = 4 * (3 * P + id * 8) + 6;
      }
    },
  });
});

test("a span ends with its page or its mapping, and says so", async () => {
  await checkSvm(gpu(), {
    mapping: (page) => (page === 3 ? HALF : page === 4 ? undefined : WHOLE),
    wgsl: `@compute @workgroup_size(1) fn main(@builtin(workgroup_id) wg: vec3u) {
      // Copies a run of words, span by span.
      let n = 3000u + wg.x * 500u;
      let source = 2u * 4096u - 1000u * wg.x;
      let goal = 5u * 4096u + 4000u * wg.x;
      var done = 0u;
      while (done < n) {
        let s = pm_span(source + done, n - done);
        let d = pm_span(goal + done, s.words);
        var i = 0u;
        for (; i + 4u <= d.words; i += 4u) { pm_span_store_vec4u(d, i, pm_span_load_vec4u(s, i)); }
        for (; i < d.words; i++) { pm_span_store_f32(d, i, pm_span_load_f32(s, i)); }
        done += d.words;
      }
      pm_store_u32(4096u + wg.x, pm_span(3u * 4096u + 2000u, 100u).words + pm_span(4u * 4096u, 0u).words);
    }`,
    pages: 8,
    grid: [2, 1, 1],
    options: { fuel: 3000 },
    initial: (i) => i & 0x7fffff,
    model: (w) => {
      for (let wg = 0; wg < 2; wg++) {
        const n = 3000 + wg * 500;
        w.copyWithin(5 * P + 4000 * wg, 2 * P - 1000 * wg, 2 * P - 1000 * wg + n);
        w[P + wg] = 48;
      }
    },
  });
});

test("accessed pages are noted when the table asks for it", async () => {
  const kernel = await compileSvmKernel(
    gpu(),
    `@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
      pm_store_u32(4096u + id.x, pm_load_u32(3u * 4096u + id.x * 64u) + pm_load_vec4u(9u * 4096u).x);
      let s = pm_span(33u * 4096u, 4u);
      pm_atomic_add_u32(35u * 4096u, pm_span_load_u32(s, 0u));
    }`,
  );
  for (const track of [true, false]) {
    const host = new SvmHost(gpu(), { pages: 40 });
    host.makeResident(1);
    const { accessed } = await host.run(kernel, { grid: [1, 1, 1], track });
    expect(accessed).toEqual(track ? [1, 3, 9, 33, 35] : []);
    host.destroy();
  }
});
