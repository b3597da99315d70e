import fc from "fast-check";
import { expect, test } from "vitest";
import { PAGES_PER_BLOCK } from "../base/index.ts";
import { PageTable } from "./page-table.ts";
import type { PhysicalMemory } from "./physical-memory.ts";

/** Above 2^31: page numbers have 36 bits. */
const ORIGIN = 2 ** 32 - 8;

test("runs of entries are looked through as one by one, across blocks and where there are none", () => {
  const cuts = fc.uniqueArray(fc.nat(60), { maxLength: 16 }).map((list) => list.sort((a, b) => a - b));
  const entry = fc.constantFrom(0, 1, 3);
  const entries = fc
    .tuple(entry, fc.array(fc.tuple(fc.nat(59), entry), { maxLength: 3 }))
    .map(([usual, others]) => Array.from({ length: 60 }, (_, i) => others.find(([at]) => at === i)?.[1] ?? usual));
  const looks = fc.constantFrom([3, 3, true] as const, [3, 1, false] as const, [1, 1, false] as const);
  fc.assert(
    fc.property(entries, cuts, fc.nat(60), fc.nat(60), looks, fc.boolean(), (ptes, bounds, a, b, look, hasBlocks) => {
      const table = new PageTable({ charge: () => undefined } as unknown as PhysicalMemory);
      ptes.forEach((pte, i) => {
        // Of the two blocks, the first may be missing.
        if (hasBlocks || ORIGIN + i >= Math.ceil(ORIGIN / PAGES_PER_BLOCK) * PAGES_PER_BLOCK) {
          table.reserve(ORIGIN + i, ORIGIN + i + 1);
          table.set(ORIGIN + i, pte);
        }
      });
      const runs = bounds.slice(0, bounds.length & ~1);
      const [vpn, end] = [ORIGIN + Math.min(a, b), ORIGIN + Math.max(a, b)];
      const [mask, value, equal] = look;
      let found = false;
      for (let i = 0; i < runs.length; i += 2) {
        for (let v = ORIGIN + runs[i]; v < ORIGIN + runs[i + 1]; v++) {
          found ||= v >= vpn && v < end && ((table.get(v) & mask) === value) === equal;
        }
      }
      expect(table.someInRuns(runs, ORIGIN, vpn, end, mask, value, equal)).toBe(found);
    }),
    { numRuns: 1000 },
  );
});
