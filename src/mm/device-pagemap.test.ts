import { describe, expect, test } from "vitest";
import { PAGES_PER_BLOCK } from "../base/index.ts";
import { createMemory } from "../testing/mm.ts";
import { DevicePagemap } from "./device-pagemap.ts";

function createPagemap() {
  const memory = createMemory();
  const ops = { migrateToRam: async () => {}, pageFree: () => {} };
  return { memory, pagemap: new DevicePagemap(memory, {}, ops) };
}

describe("a device's page frames", () => {
  test("use the pfns of frames that were removed again, so that no number of evictions uses them up", () => {
    const { memory, pagemap } = createPagemap();
    const kept = pagemap.addFrames(1);
    for (let i = 0; i < 300; i++) {
      pagemap.removeFrames(pagemap.addFrames(2 ** 10 * PAGES_PER_BLOCK), 2 ** 10 * PAGES_PER_BLOCK);
    }
    expect(memory.blocksInUse).toBe(1);
    expect(pagemap.frameOf(pagemap.pfnOf(kept))).toBe(kept);
    pagemap.removeFrames(kept, 1);
  });

  test("are named and found again when their blocks do not follow each other", () => {
    const { pagemap } = createPagemap();
    const a = pagemap.addFrames(PAGES_PER_BLOCK);
    const b = pagemap.addFrames(PAGES_PER_BLOCK);
    pagemap.removeFrames(a, PAGES_PER_BLOCK);
    const c = pagemap.addFrames(3 * PAGES_PER_BLOCK);
    for (const frame of [b, b + 511, c, c + 512, c + 1535]) {
      expect(pagemap.frameOf(pagemap.pfnOf(frame))).toBe(frame);
    }
    pagemap.removeFrames(b, PAGES_PER_BLOCK);
    pagemap.removeFrames(c, 3 * PAGES_PER_BLOCK);
  });

  test("are all taken back when one block cannot be had", () => {
    const { memory, pagemap } = createPagemap();
    memory.failAfter(2);
    expect(() => pagemap.addFrames(3 * PAGES_PER_BLOCK)).toThrow("ENOMEM");
    expect(memory.blocksInUse).toBe(0);
  });

  test("are a bug to remove twice", () => {
    const { pagemap } = createPagemap();
    const frame = pagemap.addFrames(1);
    pagemap.removeFrames(frame, 1);
    expect(() => pagemap.removeFrames(frame, 1)).toThrow("I-MIG-2");
  });
});
