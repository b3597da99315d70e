/** The driver: what is loaded once and opened for each address space. */
import { KernelError } from "../../base/index.ts";
import type { AddressSpace } from "../../mm/index.ts";
import { mmuNotifierSynchronize } from "../../mmu-notifier/index.ts";
import type { WaitOptions } from "../../sync/index.ts";
import { DmirrorDevice } from "./device-memory.ts";
import { Dmirror } from "./dmirror.ts";

/** How {@link DmirrorDriver.open} is asked. */
export interface DmirrorOpenOptions extends WaitOptions {
  /** Which of the driver's devices; 0, one with private memory, by default. */
  readonly device?: number;
}

/**
 * The reference driver. Copy it to begin a new one.
 * @linux lib/test_hmm.c
 */
export class DmirrorDriver implements AsyncDisposable {
  /** Two devices with private memory, two with coherent memory. @linux lib/test_hmm.c dmirror_devices */
  readonly devices: readonly DmirrorDevice[] = [
    new DmirrorDevice(0, "private"),
    new DmirrorDevice(1, "private"),
    new DmirrorDevice(2, "coherent"),
    new DmirrorDevice(3, "coherent"),
  ];
  readonly #open = new Set<Dmirror>();
  #unloaded = false;

  /**
   * Opens the device for an address space, of which the caller holds a user.
   * @throws KernelError ENODEV after unload, or no such device; ENOMEM, EOVERFLOW, EINTR, EBUSY as `HmmMirror.register`
   * @linux lib/test_hmm.c dmirror_fops_open
   */
  async open(mm: AddressSpace, options?: DmirrorOpenOptions): Promise<Dmirror> {
    if (this.#unloaded) {
      throw new KernelError("ENODEV", "dmirror open", "the driver is unloaded: make a new one");
    }
    const device = this.devices[options?.device ?? 0];
    if (device === undefined) {
      throw new KernelError("ENODEV", "dmirror open", `there is no device ${options?.device}: use 0 to 3`);
    }
    const dmirror = new Dmirror(mm, device);
    await dmirror.register(options);
    this.#open.add(dmirror);
    return dmirror;
  }

  /** Closes one open. Idempotent. Its accesses must have ended. @linux lib/test_hmm.c dmirror_fops_release */
  async close(dmirror: Dmirror): Promise<void> {
    if (this.#open.delete(dmirror)) {
      await dmirror.unregister();
    }
  }

  /**
   * Closes what is open, sends pages in device memory home, and waits until nothing of this driver runs or will be called, deferred frees included: after
   * that its code may go away.
   * @linux lib/test_hmm.c hmm_dmirror_exit
   */
  async unload(): Promise<void> {
    this.#unloaded = true;
    await Promise.all([...this.#open].map((dmirror) => this.close(dmirror)));
    for (const device of this.devices) {
      await device.release();
    }
    await mmuNotifierSynchronize();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.unload();
  }
}
