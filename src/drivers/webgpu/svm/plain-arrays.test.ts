/** Kernels that follow pointers, and applications that write through plain arrays, seen only when somebody looks. */
import { expect, test } from "vitest";
import { PAGE_SIZE } from "../../../base/index.ts";
import {
  AddressSpace,
  type CpuTrap,
  type CpuWindow,
  type Mapping,
  PhysicalMemory,
  serveCpuFault,
  validateMm,
} from "../../../mm/index.ts";
import { openDawn } from "../../../platform/node/dawn.ts";
import { SoftwareMmu } from "../../../platform/software/cpu-mmu.ts";
import { SVM_INCREMENT, SVM_PAGE, SVM_SUM } from "../../../testing/svm-kernels.ts";
import { WebGpuDriver } from "../driver.ts";

/** An MMU whose windows show pages to applications one by one, and remember which of them were written. */
class TrapMmu extends SoftwareMmu {
  readonly traps = true;
  readonly windows = new Map<CpuWindow, { readonly shown: Set<number>; readonly written: Set<number>; held: number }>();

  override createWindow(byteLength: number): CpuWindow {
    const { buffer, byteOffset } = super.createWindow(byteLength);
    const state = { shown: new Set<number>(), written: new Set<number>(), held: 0 };
    const trap: CpuTrap = {
      buffer: buffer as SharedArrayBuffer,
      byteOffset,
      unmap(page, end) {
        let clean = true;
        for (let p = page; p < end; p++) {
          state.shown.delete(p);
          clean &&= !state.written.has(p);
        }
        return clean;
      },
      hold() {
        state.held++;
        return { [Symbol.dispose]: () => void state.held-- };
      },
      collectWritten(page, end, visit) {
        for (const p of [...state.written].filter((at) => at >= page && at < end)) {
          state.written.delete(p);
          visit(p, p + 1);
        }
      },
      discard: () => undefined,
      moveTo: () => undefined,
      release: () => undefined,
    };
    const window = { buffer, byteOffset, byteLength, trap };
    this.windows.set(window, state);
    return window;
  }
}

async function setUp() {
  const mmu = new TrapMmu();
  const { adapter, close } = await openDawn();
  const driver = new WebGpuDriver();
  const device = await driver.open({ gpu: adapter });
  const mm = AddressSpace.create({ memory: new PhysicalMemory(mmu) });
  /** A plain store of an application: a fault if the page is not shown, unseen if it is. */
  const poke = async (data: Mapping, page: number, value: number) => {
    const object = mm.vmas.find(data.start)?.object;
    object?.windows.ensure(page);
    const trap = object?.windows.trapAt(page)?.trap;
    const [window, state] = [...mmu.windows].find(([w]) => w.trap === trap) ?? [];
    if (object === undefined || window === undefined || state === undefined) {
      throw new Error("nothing is mapped");
    }
    while (!state.shown.has(page)) {
      const served = serveCpuFault(object, page, { host: 1, device: 1 });
      if (served instanceof Promise) {
        await served;
      } else {
        expect(served.error).toBeUndefined();
        state.shown.add(page);
      }
    }
    new Uint32Array(window.buffer, window.byteOffset + page * PAGE_SIZE, 1)[0] = value;
    state.written.add(page);
  };
  return {
    mm,
    device,
    mmu,
    poke,
    async [Symbol.asyncDispose]() {
      await mm[Symbol.asyncDispose]();
      await driver.unload();
      close();
    },
  };
}

test("a kernel sees what plain arrays wrote before its dispatch, also in pages that the device has", async () => {
  await using s = await setUp();
  const out = await s.mm.mmap({ length: 4 });
  const data = await s.mm.mmap({ length: SVM_PAGE });
  const sum = await s.device.kernel(SVM_SUM);
  const words = data.length / 4;
  const params = { data: data.svmAddress, words, out: out.svmAddress };
  await s.poke(data, 1, 5);
  const run = () => sum.dispatch({ mm: s.mm, params, workgroups: words / 64 });
  await run();
  await s.poke(data, 1, 7);
  await run();
  expect(new Uint32Array((await out.read(0, 4)).buffer)[0]).toBe(12);
  validateMm(s.mm);
});

test("of what plain arrays wrote here and there only those pages travel, in bind and in svm mode", async () => {
  await using s = await setUp();
  const pages = 64;
  const [out, seen] = [await s.mm.mmap({ length: 4 }), await s.mm.mmap({ length: 4 })];
  const data = await s.mm.mmap({ length: pages * PAGE_SIZE });
  await data.write(0, new Uint8Array(data.length).fill(1));
  const bind = await s.device.kernel(`
    @group(0) @binding(0) var<storage, read> data: array<u32>;
    @group(0) @binding(1) var<storage, read_write> seen: array<u32>;
    @compute @workgroup_size(1) fn main() {
      var sum = 0u;
      for (var i = 0u; i < ${pages}u; i++) { sum += data[i * 1024u] * (i + 1u); }
      seen[0] = sum;
    }`);
  const sum = await s.device.kernel(SVM_SUM);
  const words = data.length / 4;
  const ones = 0x01010101;
  const values = new Array<number>(pages).fill(ones);
  const word = async (mapping: Mapping) => new Uint32Array((await mapping.read(0, 4)).buffer)[0];
  for (const written of [[], [3], [60, 5, 6, 17, 33, 34, 35], [0, 2, 4, 63]]) {
    for (const [i, page] of written.entries()) {
      values[page] = 1000 * (i + 1) + page;
      await s.poke(data, page, values[page]);
    }
    const bound = await bind.dispatch({ bind: { data, seen }, workgroups: 1 });
    expect(bound.pagesUploaded).toBe(written.length || pages);
    expect(await word(seen)).toBe(values.reduce((all, value, i) => (all + value * (i + 1)) % 2 ** 32, 0));
    await s.poke(out, 0, 0);
    const params = { data: data.svmAddress, words, out: out.svmAddress };
    const followed = await sum.dispatch({ mm: s.mm, params, workgroups: words / 64 });
    // Pages of the result, and of what shares a device page with it, come too.
    expect(followed.pagesUploaded).toBeLessThanOrEqual((written.length || pages) + 4);
    const total = values.reduce((all, value) => all + value - ones, words * ones) % 2 ** 32;
    expect(await word(out)).toBe(total);
  }
  validateMm(s.mm);
});

test("a kernel adds to what plain arrays wrote, and they see it, in turns", async () => {
  await using s = await setUp();
  const data = await s.mm.mmap({ length: SVM_PAGE });
  const kernel = await s.device.kernel(SVM_INCREMENT);
  const words = data.length / 4;
  for (let round = 0; round < 3; round++) {
    await s.poke(data, 2, 10 * round);
    await kernel.dispatch({ mm: s.mm, params: { data: data.svmAddress, words }, workgroups: words / 64 });
    expect([...s.mmu.windows.values()].every(({ held }) => held === 0)).toBe(true);
    expect(new Uint32Array((await data.read(2 * PAGE_SIZE, 8)).buffer)).toEqual(
      new Uint32Array([10 * round + 1, round + 1]),
    );
  }
  validateMm(s.mm);
});
