/** The WebGPU driver runs through the conformance suite, in both of its modes. */
import { afterAll, beforeAll, test } from "vitest";
import { addrOf, PAGE_SIZE, pageAlignDown, pageAlignUp, vpnOf } from "../base/index.ts";
import { type WebGpuDevice, WebGpuDriver } from "../drivers/webgpu/index.ts";
import { type AddressSpace, Mapping, SVM_APERTURE_BASE } from "../mm/index.ts";
import { openDawn } from "../platform/node/dawn.ts";
import { testMmu } from "../testing/mmu.ts";
import { SVM_COPY } from "../testing/svm-kernels.ts";
import { type ConformanceDevice, type ConformanceDriver, conformance } from "./index.ts";

/** Copies `count` words, one an invocation. */
const COPY = /* wgsl */ `
struct Params { src: u32, dst: u32, count: u32 }
@group(0) @binding(0) var<storage, read> from_: array<u32>;
@group(0) @binding(1) var<storage, read_write> to_: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.count) { to_[params.dst + id.x] = from_[params.src + id.x]; }
}`;

/** Where no test maps anything, and kernels in svm mode can get. */
const SCRATCH = SVM_APERTURE_BASE + 2 ** 32;

/** Whole pages around an access, as a mapping to bind. */
function around(mm: AddressSpace, addr: number, length: number): Mapping {
  const start = pageAlignDown(addr as ReturnType<typeof addrOf>);
  const end = pageAlignUp((addr + length) as ReturnType<typeof addrOf>);
  return new Mapping(mm, addrOf(vpnOf(start)), end - start, "part");
}

type Mode = "bind" | "svm";

async function open(device: WebGpuDevice, mm: AddressSpace, mode: Mode): Promise<ConformanceDevice> {
  const kernel = await device.kernel(mode === "bind" ? COPY : SVM_COPY);
  const scratch = await mm.mmap({ length: 16 * PAGE_SIZE, addr: SCRATCH, name: "scratch" });
  const copy = (from: Mapping, src: number, to: Mapping, dst: number, bytes: number) => {
    const workgroups = Math.ceil(bytes / 256);
    const at = { src: src / 4, dst: dst / 4 };
    return mode === "bind"
      ? kernel.dispatch({ bind: { from_: from, to_: to }, params: { ...at, count: bytes / 4 }, workgroups })
      : kernel.dispatch({
          mm,
          params: { src: from.svmAddress + at.src, dst: to.svmAddress + at.dst, words: bytes / 4 },
          workgroups,
        });
  };
  return {
    async read(addr, length) {
      const part = around(mm, addr, length);
      await copy(part, addr - part.start, scratch, 0, length);
      return scratch.read(0, length);
    },
    async write(addr, bytes) {
      const part = around(mm, addr, bytes.length);
      await scratch.write(0, bytes);
      await copy(scratch, 0, part, addr - part.start, bytes.length);
    },
  };
}

let opened: Awaited<ReturnType<typeof openDawn>>[] = [];

beforeAll(() => {
  opened = [];
});

afterAll(() => {
  for (const { close } of opened) {
    close();
  }
});

for (const mode of ["bind", "svm"] as const) {
  conformance({
    name: `webgpu, ${mode} mode`,
    test,
    mmus: { [testMmu().name]: testMmu },
    except: {
      "whichever allocation fails, the driver says ENOMEM and nothing is lost":
        "an open is a device of its own here, and its buffers are the GPU's allocations",
    },
    async openDriver(): Promise<ConformanceDriver> {
      const driver = new WebGpuDriver();
      const dawn = await openDawn();
      opened.push(dawn);
      const device = await driver.open({ gpu: dawn.adapter, label: "conformance", waiting: dawn.waiting });
      return {
        open: async (mm) => {
          device.assertOpen("open");
          return open(device, mm, mode);
        },
        unload: () => driver.unload(),
      };
    },
  });
}
