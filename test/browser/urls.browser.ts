/** URLs of another origin, mapped by a page. */
import { expect, inject, test } from "vitest";
import { open } from "../../src/browser.ts";

const byteAt = (i: number) => (i * 7 + (i >> 8)) & 0xff;

test("a URL is fetched by ranges as its pages are touched", async () => {
  await using pm = await open();
  const object = await pm.openUrl(`${inject("ranges")}/open.bin`, { retries: 0 });
  expect(object.pages).toBe(768);
  const data = await pm.mm.mmap({ object, length: object.length, shared: true, prot: "r" });
  const sums = await pm.mm.mmap({ length: 4096 });
  await object.put();
  expect([...(await data.read(2 ** 20 + 5, 3))]).toEqual([5, 6, 7].map((i) => byteAt(2 ** 20 + i)));
  const kernel = await pm.device.kernel(`
    @group(0) @binding(0) var<storage, read> data: array<u32>;
    @group(0) @binding(1) var<storage, read_write> sums: array<atomic<u32>>;
    @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) { atomicAdd(&sums[0], data[id.x] & 255u); }`);
  await kernel.dispatch({ bind: { data, sums }, workgroups: (3 * 2 ** 20) / 256 });
  let sum = 0;
  for (let i = 0; i < 3 * 2 ** 20; i += 4) {
    sum += byteAt(i);
  }
  expect(new Uint32Array((await sums.read(0, 4)).buffer)[0]).toBe(sum);
});

test("what the other origin does not allow or show is told, with the remedy", async () => {
  await using pm = await open();
  const messageOf = (path: string) =>
    pm.openUrl(`${inject("ranges")}${path}`, { retries: 0 }).then(
      () => "opened",
      (error: unknown) => String(error),
    );
  expect(await messageOf("/hidden.bin")).toMatch(
    /ENOTSUP: .*let the server expose ETag and Content-Range to this page/,
  );
  expect(await messageOf("/closed.bin")).toMatch(/EIO: .*the server must allow this page's origin \(CORS\)/);
  expect(await messageOf("/missing.bin")).toMatch(/ENOENT: .*HTTP 404/);
});
