/** Kernels that follow pointers, and what they do to words on the CPU. */

const HEAD = /* wgsl */ `
struct Params { a: u32, b: u32, words: u32, k: u32 }
@group(0) @binding(0) var<uniform> params: Params;`;
const EACH = /* wgsl */ `@compute @workgroup_size(32) fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x;
  if (i >= params.words) { return; }`;

/** What each kernel does to words `a` and `b` with a number `k` that has no factor in common with their count. */
export const MODEL_KERNELS = {
  increment: {
    wgsl: `${HEAD} ${EACH} pm_store_u32(params.a + i, pm_load_u32(params.a + i) + params.k); }`,
    model: (a: Uint32Array, _b: Uint32Array, k: number) => {
      for (let i = 0; i < a.length; i++) a[i] += k;
    },
  },
  copy: {
    wgsl: `${HEAD} ${EACH} if (i * 4u + 3u < params.words) { pm_store_vec4u(params.b + i * 4u, pm_load_vec4u(params.a + i * 4u) + params.k); } }`,
    model: (a: Uint32Array, b: Uint32Array, k: number) => {
      for (let i = 0; i < a.length - (a.length % 4); i++) b[i] = a[i] + k;
    },
  },
  scatter: {
    wgsl: `${HEAD} ${EACH} pm_store_u32(params.b + (i * params.k) % params.words, pm_load_u32(params.a + i)); }`,
    model: (a: Uint32Array, b: Uint32Array, k: number) => {
      for (let i = 0; i < a.length; i++) b[(i * k) % a.length] = a[i];
    },
  },
  gather: {
    wgsl: `${HEAD} ${EACH} pm_store_u32(params.b + i, pm_load_u32(params.a + (i * params.k) % params.words)); }`,
    model: (a: Uint32Array, b: Uint32Array, k: number) => {
      for (let i = 0; i < a.length; i++) b[i] = a[(i * k) % a.length];
    },
  },
  histogram: {
    wgsl: `${HEAD} ${EACH} pm_atomic_add_u32(params.b + pm_load_u32(params.a + i) % 16u, params.k); }`,
    model: (a: Uint32Array, b: Uint32Array, k: number) => {
      for (const word of a) b[word % 16] += k;
    },
  },
  runningSum: {
    wgsl: `${HEAD} @compute @workgroup_size(1) fn main() {
      let step = max(1u, params.words / 8u);
      var sum = params.k;
      for (var i = 0u; i < params.words; i += step) { sum += pm_load_u32(params.a + i); pm_store_u32(params.a + i, sum); }
    }`,
    model: (a: Uint32Array, _b: Uint32Array, k: number) => {
      const step = Math.max(1, Math.floor(a.length / 8));
      let sum = k;
      for (let i = 0; i < a.length; i += step) {
        sum += a[i];
        a[i] = sum;
      }
    },
  },
  chase: {
    wgsl: `${HEAD} @compute @workgroup_size(4) fn main(@builtin(local_invocation_index) lane: u32) {
      var at = lane % params.words;
      for (var n = 0u; n < 6u; n++) { at = (pm_load_u32(params.a + at) * params.k + n) % params.words; }
      pm_store_u32(params.b + lane, at);
    }`,
    model: (a: Uint32Array, b: Uint32Array, k: number) => {
      for (let lane = 0; lane < 4; lane++) {
        let at = lane % a.length;
        for (let n = 0; n < 6; n++) {
          at = ((Math.imul(a[at], k) + n) >>> 0) % a.length;
        }
        b[lane] = at;
      }
    },
  },
  boundUpdate: {
    wgsl: `${HEAD} @group(0) @binding(1) var<storage, read_write> out: array<u32>;
      ${EACH} out[i] = out[i] * 3u + pm_load_u32(params.a + (i * params.k) % params.words); }`,
    model: (a: Uint32Array, b: Uint32Array, k: number) => {
      for (let i = 0; i < a.length; i++) b[i] = b[i] * 3 + a[(i * k) % a.length];
    },
  },
  boundHistogram: {
    wgsl: `${HEAD} @group(0) @binding(1) var<storage, read_write> out: array<atomic<u32>>;
      ${EACH} let old = atomicAdd(&out[0], 1u);
        pm_store_u32(params.a + i, pm_load_u32(params.a + i) + 1u);
        atomicAdd(&out[1u + pm_load_u32(params.a + i) % 2u], old - old);
        atomicAdd(&out[3], params.k); }`,
    model: (a: Uint32Array, b: Uint32Array, k: number) => {
      for (let i = 0; i < a.length; i++) {
        a[i]++;
        b[0]++;
        b[3] += k;
      }
    },
  },
  stream: {
    wgsl: `${HEAD}
    fn mix(at: u32, x: u32) -> u32 {
      for (var n = 0u; n < 2u; n++) { pm_store_u32(at, pm_load_u32(at) ^ (x + n)); }
      return x % 7u;
    }
    @compute @workgroup_size(1) fn main() {
      var sum = params.k;
      for (var i = 0u; i < params.words; i += 61u) {
        sum += pm_load_u32(params.a + i);
        sum += mix(params.b + (i * params.k) % params.words, sum);
        let before = pm_atomic_add_u32(params.b + i, sum);
        sum ^= before;
      }
      pm_store_u32(params.b, sum);
    }`,
    model: (a: Uint32Array, b: Uint32Array, k: number) => {
      let sum = k;
      for (let i = 0; i < a.length; i += 61) {
        sum = (sum + a[i]) >>> 0;
        b[(i * k) % a.length] ^= sum ^ (sum + 1);
        sum = (sum + (sum % 7)) >>> 0;
        const before = b[i];
        b[i] += sum;
        sum = (sum ^ before) >>> 0;
      }
      b[0] = sum;
    },
  },
} as const;

/** They reach `b` through a variable. */
export const BINDING: ReadonlySet<string> = new Set(["boundUpdate", "boundHistogram"]);

/** Name of one of them. */
export type KernelName = keyof typeof MODEL_KERNELS;
/** All of them. */
export const KERNEL_NAMES = Object.keys(MODEL_KERNELS) as KernelName[];
/** Those of one workgroup. */
export const ALONE: ReadonlySet<KernelName> = new Set(["runningSum", "chase", "stream"]);
