import fc from "fast-check";
import { expect, test } from "vitest";
import { PageState } from "./extent.ts";
import { countPages } from "./page-counts.ts";

test("every valid page is counted once, wherever it lies in its extent", () => {
  const run = fc.tuple(fc.nat(15), fc.integer({ min: 1, max: 70 }));
  fc.assert(
    fc.property(fc.array(fc.array(run, { maxLength: 8 }), { maxLength: 3 }), (all) => {
      const states = all.map((runs) => {
        const pages = runs.flatMap(([bits, count]) => new Array<number>(count).fill(bits));
        const state = new Uint8Array(Math.ceil(pages.length / 4) * 4).subarray(0, pages.length);
        state.set(pages);
        return state;
      });
      const valid = states.reduce((sum, state) => sum + state.filter((bits) => bits & PageState.Valid).length, 0);
      const counts = countPages(
        states.map((state, i) => ({ state, ownedPages: i })),
        4096 * 1000,
      );
      expect(counts).toEqual({
        resident: valid,
        dirty: states.reduce((sum, _, i) => sum + i, 0),
        free: Math.max(0, 1000 - valid),
      });
    }),
  );
});
