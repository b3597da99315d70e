/** The programs of docs/browser.md, in a page. */
import { blocks } from "virtual:docs";
import { expect, test, vi } from "vitest";

test.each(blocks)("%s runs", async (where, run) => {
  const asserted = vi.spyOn(console, "assert");
  vi.spyOn(console, "log").mockImplementation(() => undefined);
  if (!globalThis.crossOriginIsolated && where.includes("openWorker")) {
    await expect(run()).rejects.toMatchObject({ code: "ENOTSUP" });
  } else {
    await run();
  }
  expect(asserted.mock.calls.filter(([held]) => held !== true)).toEqual([]);
  vi.restoreAllMocks();
});
