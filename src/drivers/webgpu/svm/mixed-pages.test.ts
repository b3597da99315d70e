/** Device pages whose CPU pages differ in what is mapped, and in what may be done to them. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatAddr, PAGE_SIZE, type VirtAddr } from "../../../base/index.ts";
import { AddressSpace, type Mapping, MemoryObject, validateMm } from "../../../mm/index.ts";
import { type Machine, wordsOf } from "../../../testing/machine.ts";
import { TestPager } from "../../../testing/mm.ts";
import { assertProperty } from "../../../testing/property.ts";
import { SVM_COPY, SVM_INCREMENT, SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";
import type { WebGpuKernel } from "../kernel.ts";

const SUB_WORDS = PAGE_SIZE / 4;

/** Adds 1 to words of CPU page `sub` of a mapping. */
function bump(kernel: WebGpuKernel, data: Mapping, sub: number, words = SUB_WORDS) {
  const params = { data: data.svmAddress + sub * SUB_WORDS, words };
  return kernel.dispatch({ mm: data.mm, params, workgroups: Math.ceil(words / 64) });
}

async function filled(m: Machine, subs: number, value: number): Promise<Mapping> {
  const data = await m.mm.mmap({ length: subs * PAGE_SIZE, name: "data" });
  await data.write(0, new Uint32Array(data.length / 4).fill(value));
  return data;
}

describe("a device page of several kinds", () => {
  test("what lies behind a hole can be used, and the hole is named to the word", async () => {
    await using m = await svmMachine(4);
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const data = await filled(m, 8, 5);
    await bump(kernel, data, 0, data.length / 4);
    await m.mm.munmap(data.start + PAGE_SIZE, PAGE_SIZE);
    for (const sub of [0, 2, 3]) {
      await bump(kernel, data, sub);
    }
    const at = data.svmAddress + SUB_WORDS;
    await expect(bump(kernel, data, 1, 1)).rejects.toThrow(
      `EFAULT: main, workgroup 0, invocation 0, reads svm address ${at} (${formatAddr((data.start + PAGE_SIZE) as VirtAddr)}), outside every mapping`,
    );
    expect([...new Set(new Uint32Array((await data.read(0, PAGE_SIZE)).buffer))]).toEqual([7]);
    expect([...new Set(new Uint32Array((await data.read(2 * PAGE_SIZE)).buffer))]).toEqual([7, 6]);
    validateMm(m.mm);
  });

  test("memory that is mapped and cannot be reached is named with the reason", async () => {
    await using m = await svmMachine(4);
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const data = await filled(m, 4, 5);
    const object = new MemoryObject(m.memory, { pages: 1 });
    const short = await m.mm.mmap({ length: SVM_PAGE, object, shared: true, name: "short" });
    await object.put();
    await m.mm.mprotect(data.start + PAGE_SIZE, PAGE_SIZE, "none");
    for (let times = 0; times < 2; times++) {
      await expect(bump(kernel, data, 1, 1)).rejects.toThrow(
        /EFAULT: main, .* reads svm address \d+ .*, in data, which may not be read: mprotect it first/,
      );
      await expect(bump(kernel, short, 3, 1)).rejects.toThrow(
        /EFAULT: main, .* reads svm address \d+ .*, in short, past the end of its 4096 bytes: check/,
      );
      await m.device.prefetch(data, { write: true });
      await m.device.prefetch(short, { write: true });
      await bump(kernel, short, 0);
      await bump(kernel, data, 2);
    }
    expect(new Uint32Array((await data.read(2 * PAGE_SIZE, 4)).buffer)[0]).toBe(7);
  });

  test("what may only be read is read, its neighbours are written, and a store to it is refused by its address", async () => {
    await using m = await svmMachine(4);
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const copy = await m.device.kernel(SVM_COPY);
    const data = await filled(m, 4, 5);
    const goal = await m.mm.mmap({ length: SVM_PAGE });
    await bump(kernel, data, 0, data.length / 4);
    await m.mm.mprotect(data.start + 2 * PAGE_SIZE, PAGE_SIZE, "r");
    for (const sub of [0, 1, 3]) {
      await bump(kernel, data, sub);
    }
    const params = { src: data.svmAddress, dst: goal.svmAddress, words: 4 * SUB_WORDS };
    await copy.dispatch({ mm: m.mm, params, workgroups: SVM_PAGE / 256 });
    const words = await wordsOf(goal);
    expect([0, 1, 2, 3].map((sub) => words[sub * SUB_WORDS + 9])).toEqual([7, 7, 6, 7]);
    await expect(bump(kernel, data, 2, 1)).rejects.toThrow(
      `EPERM: main, workgroup 0, invocation 0, writes svm address ${data.svmAddress + 2 * SUB_WORDS} `,
    );
    expect([...(await wordsOf(data))]).toEqual([...words]);
    validateMm(m.mm);
  });

  test("what is written comes home without a word to its neighbours, which others use meanwhile", async () => {
    await using m = await svmMachine(2);
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const other = AddressSpace.create({ memory: m.memory });
    const object = new MemoryObject(m.memory, { pages: 1 });
    const data = await filled(m, 4, 5);
    await m.mm.munmap(data.start + PAGE_SIZE, PAGE_SIZE);
    const shared = await m.mm.mmap({
      addr: data.start + PAGE_SIZE,
      length: PAGE_SIZE,
      fixed: true,
      object,
      shared: true,
    });
    await m.mm.mprotect(shared.start, PAGE_SIZE, "r");
    const theirs = await other.mmap({ length: PAGE_SIZE, object, shared: true });
    await bump(kernel, data, 0);
    await bump(kernel, data, 3);
    // In frames by now, and read there; the other space writes what this one may only read.
    await theirs.write(0, new Uint32Array(SUB_WORDS).fill(77));
    const far = await filled(m, 16, 1);
    await bump(kernel, far, 0, far.length / 4);
    const words = [];
    for (const sub of [0, 1, 2, 3]) {
      words.push(new Uint32Array((await data.read(sub * PAGE_SIZE, PAGE_SIZE)).buffer)[100]);
    }
    expect(words).toEqual([6, 77, 5, 6]);
    await other[Symbol.asyncDispose]();
    await object.put();
    validateMm(m.mm);
  });
});

/** What one CPU page is: nothing, read-only, writable. */
const KINDS = ["none", "r", "rw"] as const;
const kinds = fc.array(fc.constantFrom(...KINDS), { minLength: 4, maxLength: 14 });

/** Adds the words of the pages that may be read to those of the pages that may be written; a mask says which are which. */
const MIX = /* wgsl */ `
struct Params { data: u32, pages: u32, readable: u32, writable: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  var sum = 0u;
  for (var p = 0u; p < params.pages; p++) {
    if (((params.readable & ~params.writable) >> p) % 2u == 1u) { sum += pm_load_u32(params.data + p * 1024u + id.x); }
  }
  for (var p = 0u; p < params.pages; p++) {
    let at = params.data + p * 1024u + id.x;
    if ((params.writable >> p) % 2u == 1u) { pm_store_u32(at, pm_load_u32(at) + sum + p); }
  }
}`;

describe("any mix of CPU pages", () => {
  test("is read and written page by page, whatever changes between dispatches, through a pool of two frames and more", async () => {
    await using m = await svmMachine();
    const small = await m.open({ deviceMemory: 5 * SVM_PAGE });
    const kernels = [await m.device.kernel(MIX), await small.kernel(MIX)];
    const trial = fc.tuple(fc.boolean(), fc.nat(1), fc.boolean(), fc.array(kinds, { minLength: 1, maxLength: 4 }));
    await assertProperty(
      fc.asyncProperty(trial, async ([file, gpu, touch, list]) => {
        const mm = AddressSpace.create({ memory: m.memory });
        const pages = list[0].length;
        const bytes = new Uint8Array(pages * PAGE_SIZE).map((_, i) => (i * 7) >>> 3);
        const object = new MemoryObject(m.memory, file ? { pages, pager: new TestPager(bytes) } : { pages });
        const data = await mm.mmap({ length: pages * PAGE_SIZE, object, shared: true });
        const all = await mm.mmap({ length: pages * PAGE_SIZE, object, shared: true, name: "all" });
        const model = new Uint32Array((await all.read()).buffer);
        try {
          for (const layout of list) {
            const of = (p: number) => layout[p % layout.length];
            for (let p = 0; p < pages; p++) {
              const addr = data.start + p * PAGE_SIZE;
              await mm.mmap({ addr, length: PAGE_SIZE, fixed: true, object, offset: p * PAGE_SIZE, shared: true });
              if (of(p) === "none") {
                await mm.munmap(addr, PAGE_SIZE);
              } else {
                await mm.mprotect(addr, PAGE_SIZE, of(p) as "r" | "rw");
              }
            }
            const mask = (wanted: (kind: string) => boolean) =>
              layout.slice(0, pages).reduce((bits, kind, p) => bits | (wanted(kind) ? 1 << p : 0), 0) >>> 0;
            const [readable, writable] = [mask((kind) => kind !== "none"), mask((kind) => kind === "rw")];
            const params = { data: data.svmAddress, pages: Math.min(pages, layout.length), readable, writable };
            const running = kernels[gpu].dispatch({ mm, params, workgroups: SUB_WORDS / 64, timeoutMs: 10_000 });
            if (touch) {
              // Changes nothing, but takes pages from the device.
              using lease = await all.lease("rw");
              lease.u32[0] ^= 0;
            }
            await running;
            for (let i = 0; i < SUB_WORDS; i++) {
              let sum = 0;
              for (let p = 0; p < params.pages; p++) {
                sum += of(p) === "r" ? model[p * SUB_WORDS + i] : 0;
              }
              for (let p = 0; p < params.pages; p++) {
                model[p * SUB_WORDS + i] += of(p) === "rw" ? sum + p : 0;
              }
            }
            expect(new Uint32Array((await all.read()).buffer).findIndex((word, i) => word !== model[i])).toBe(-1);
            validateMm(mm);
          }
        } finally {
          await mm[Symbol.asyncDispose]();
          await object.put();
        }
      }),
      { numRuns: Number(process.env.PM_RUNS ?? 20) },
    );
  }, 120_000);
});
