/** I-GPU-6, for tests: what a device believes to have is what the CPU would see. */
import { BugError, formatAddr, PAGE_SIZE } from "../base/index.ts";
import { type Extent, PageState } from "../drivers/webgpu/extent.ts";
import type { WebGpuDevice } from "../drivers/webgpu/index.ts";
import { type AddressSpace, PTE_PRESENT, PTE_WRITE, PteKind, pteIsKind } from "../mm/index.ts";

/** The words that the CPU would see in the page at an address; undefined where nothing is mapped. */
export type PageOracle = (addr: number) => Uint32Array | undefined;

/**
 * Reads every valid page of the space's mirror back, leaving all state as it is, and compares.
 * @throws BugError I-GPU-6 that names the first page that differs; I-GPU-7 for entries that grant the CPU too much
 */
export async function validateDevice(device: WebGpuDevice, mm: AddressSpace, oracle: PageOracle): Promise<void> {
  const mirror = await device.mirrorOf(mm);
  for (const extent of mirror.extents.all()) {
    const bytes = await contentsOf(device, extent);
    for (let page = 0; page < extent.pages; page++) {
      validatePage(extent, page, mm, oracle, new Uint32Array(bytes.buffer, page * PAGE_SIZE, PAGE_SIZE / 4));
    }
  }
}

function validatePage(extent: Extent, page: number, mm: AddressSpace, oracle: PageOracle, held: Uint32Array): void {
  const addr = extent.addrOf(page);
  const state = extent.state[page];
  const where = `page ${formatAddr(addr)}, state ${state}`;
  if (!(state & PageState.Touched) && held.some((word) => word !== 0)) {
    throw new BugError("I-GPU-6", `${where} was never touched and is not zero`);
  }
  if (!(state & PageState.Valid)) {
    return;
  }
  const expected = oracle(addr);
  const pte = mm.pageTable.get(addr / PAGE_SIZE);
  if (expected === undefined) {
    throw new BugError("I-GPU-6", `${where} is valid where nothing is mapped`);
  }
  if (pte & PTE_PRESENT && pte & PTE_WRITE) {
    throw new BugError("I-GPU-7", `${where} is valid while the CPU may write it`);
  }
  if (state & PageState.Owned && !pteIsKind(pte, PteKind.DevicePrivate)) {
    throw new BugError("I-GPU-7", `${where} is the device's own, and its entry is ${pte}`);
  }
  const at = expected.findIndex((word, i) => word !== held[i]);
  if (at >= 0) {
    throw new BugError("I-GPU-6", `${where} word ${at} is ${held[at]}, the CPU would see ${expected[at]}`);
  }
}

async function contentsOf(device: WebGpuDevice, extent: Extent): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(extent.bytes);
  const take = (src: Uint8Array, at: number) => bytes.set(src, at);
  await device.transfer.readback([
    { buffer: extent.buffer.buffer, offset: extent.offsetOf(0), bytes: bytes.length, take },
  ]);
  return bytes;
}
