/** Kernels that follow addresses through memory behind a URL: fetched by range as it is missed, from a real server. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openUrlObject } from "../src/platform/http/index.ts";
import { type Machine, wordsOf } from "../src/testing/machine.ts";
import { hasNginx, NGINX_HINT, Nginx } from "../src/testing/nginx.ts";
import { SVM_COPY, SVM_PAGE, svmMachine } from "../src/testing/svm-kernels.ts";

/** `out[i] = data[i * stride]`. */
const GATHER = /* wgsl */ `
struct Params { data: u32, stride: u32, count: u32, out: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.count) { pm_store_u32(params.out + id.x, pm_load_u32(params.data + id.x * params.stride)); }
}`;

const PAGES = 256;
const WORDS = new Uint32Array((PAGES * SVM_PAGE) / 4).map((_, i) => Math.imul(i, 2654435761));
const OPTIONS = { retries: 2, backoffMs: 1 };

describe.skipIf(!hasNginx())(`svm kernels over a URL of ${NGINX_HINT}`, () => {
  let nginx: Nginx;

  beforeAll(async () => {
    nginx = await Nginx.start();
  });
  afterAll(() => nginx[Symbol.asyncDispose]());

  async function mapped(m: Machine, name: string) {
    nginx.put(name, new Uint8Array(WORDS.buffer));
    const object = await openUrlObject(m.memory, `${nginx.url}/plain/${name}`, OPTIONS);
    const data = await m.mm.mmap({ length: PAGES * SVM_PAGE, object, prot: "r", name });
    await object.put();
    const out = await m.mm.mmap({ length: data.length, name: "out" });
    await nginx.takeLog();
    return { data, out };
  }

  test("a gather fetches what it touches, by ranges, and a copy all of it through a small pool", async () => {
    await using m = await svmMachine(24);
    const { data, out } = await mapped(m, "gather.bin");
    const gather = await m.device.kernel(GATHER);
    const stride = 32 * 4096 + 7;
    const params = { data: data.svmAddress, stride, count: 8, out: out.svmAddress };
    await gather.dispatch({ mm: m.mm, params, workgroups: 1, timeoutMs: 20_000 });
    expect([...(await wordsOf(out)).subarray(0, 8)]).toEqual(Array.from({ length: 8 }, (_, i) => WORDS[i * stride]));
    const log = await nginx.takeLog();
    expect(new Set(log.map(({ status }) => status))).toEqual(new Set([206]));
    const copy = await m.device.kernel(SVM_COPY);
    const words = data.length / 4;
    const stats = await copy.dispatch({
      mm: m.mm,
      params: { src: data.svmAddress, dst: out.svmAddress, words },
      workgroups: words / 64,
      timeoutMs: 20_000,
    });
    expect(stats.evictions).toBeGreaterThan(PAGES);
    expect(await wordsOf(out)).toEqual(WORDS);
  });

  test("a store to it, and an object that changed meanwhile, fail the dispatch, and the space goes on", async () => {
    await using m = await svmMachine(24);
    const { data, out } = await mapped(m, "changed.bin");
    const copy = await m.device.kernel(SVM_COPY);
    const job = (src: number, dst: number, words: number) => ({
      mm: m.mm,
      params: { src, dst, words },
      workgroups: words / 64,
      timeoutMs: 20_000,
    });
    await expect(copy.dispatch(job(out.svmAddress, data.svmAddress, 64))).rejects.toMatchObject({ code: "EPERM" });
    await copy.dispatch(job(data.svmAddress, out.svmAddress, 64));
    nginx.put("changed.bin", new Uint8Array(PAGES * SVM_PAGE));
    const words = data.length / 4;
    await expect(copy.dispatch(job(data.svmAddress, out.svmAddress, words))).rejects.toThrow(/EIO.*has changed since/);
    const other = await m.mm.mmap({ length: SVM_PAGE });
    await copy.dispatch(job(out.svmAddress, other.svmAddress, 64));
    expect((await wordsOf(other)).subarray(0, 64)).toEqual(WORDS.subarray(0, 64));
  });
});
