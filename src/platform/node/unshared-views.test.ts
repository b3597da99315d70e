import { expect, test } from "vitest";
import { loadKoffi } from "./native.ts";
import { UnsharedViews } from "./unshared-views.ts";

test("shared memory has one view of the same bytes, and other memory is its own", async () => {
  const koffi = await loadKoffi();
  if (koffi instanceof Error) {
    throw koffi;
  }
  const views = new UnsharedViews(koffi);
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }).buffer;
  const view = views.unshared(memory);
  expect(view).toBeInstanceOf(ArrayBuffer);
  expect(view.byteLength).toBe(65_536);
  new Uint8Array(memory)[77] = 5;
  expect(new Uint8Array(view)[77]).toBe(5);
  new Uint8Array(view)[65_535] = 6;
  expect(new Uint8Array(memory)[65_535]).toBe(6);
  expect(views.unshared(memory)).toBe(view);
  const plain = new ArrayBuffer(8);
  expect(views.unshared(plain)).toBe(plain);
});
