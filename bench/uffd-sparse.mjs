/**
 * bench/bind.mjs on plain arrays: 256 MiB bound for reading, 1 % of its pages rewritten before each dispatch, without a lease or
 * a word to anybody. What changed is found by PAGEMAP_SCAN when the kernel is dispatched, in the service thread.
 */
import { openDawn, openShared } from "../dist/node.js";
import { BYTES, DIRTY, handWritten, interleaved, KERNEL, PAGES, WARM_UP } from "./bind.mjs";

const ROUNDS = 61;

export async function sparse() {
  const pm = await openShared({ mmu: "userfaultfd" });
  const { adapter, close } = await openDawn();
  const device = await adapter.requestDevice({
    requiredLimits: { maxBufferSize: BYTES, maxStorageBufferBindingSize: BYTES },
  });
  try {
    const data = await pm.mm.mmap({ length: BYTES, name: "data" });
    const result = await pm.mm.mmap({ length: 256, name: "result" });
    const kernel = await pm.device.kernel(KERNEL);
    const { u32 } = data;
    u32.fill(1);
    const hand = await handWritten({ device, queue: device.queue });
    const plain = async (pages, value) => {
      for (const page of pages) {
        u32.fill(value, page * 1024, page * 1024 + 1024);
      }
      await kernel.dispatch({ bind: { data, result }, workgroups: 1 });
    };
    const before = await pm.device.stats();
    const [mine, shared, unshared] = await interleaved([plain, hand.dirtyOnly, hand.dirtyOnlyUnshared], ROUNDS);
    const { pagesUploaded } = await pm.device.stats();
    const expected = PAGES + (ROUNDS + WARM_UP - 1) * DIRTY;
    const uploaded = pagesUploaded - before.pagesUploaded;
    if (uploaded < expected || uploaded > expected + DIRTY) {
      throw new Error(`${uploaded} pages went up, ${expected} had changed`);
    }
    hand.end();
    return [
      { name: "uffd.sparse.ms", value: mine, unit: "ms", better: "lower" },
      { name: "uffd.sparse.vs_hand", value: mine / shared, unit: "x", better: "lower" },
      { name: "uffd.sparse.vs_hand_unshared", value: mine / unshared, unit: "x", better: "lower" },
    ];
  } finally {
    device.destroy();
    close();
    await pm.close();
  }
}
