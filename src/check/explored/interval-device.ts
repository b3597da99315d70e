/** A device on an interval notifier, whose invalidations have two passes. */
import { PAGE_SIZE, type VirtRange, virtAddr, vpnOf } from "../../base/index.ts";
import {
  HMM_PFN_REQ_FAULT,
  HMM_PFN_REQ_WRITE,
  HMM_PFN_WRITE,
  hmmPfnToPfn,
  hmmRangeFaultUnlocked,
} from "../../hmm/index.ts";
import type { AddressSpace, MmuNotifierRange } from "../../mm/index.ts";
import { MmuIntervalNotifier } from "../../mmu-notifier/index.ts";
import { Mutex } from "../../sync/index.ts";
import type { Host } from "../scenario.ts";
import type { CheckedDevice } from "./world.ts";

/** Lets go of its pages in the first pass, and waits in the second as a driver does for its fence. */
export class IntervalDevice implements CheckedDevice {
  readonly table = new Map<number, { readonly pfn: number; readonly write: boolean }>();
  readonly #name: string;
  readonly #host: Host;
  readonly #update = new Mutex("update");
  readonly #notifier: MmuIntervalNotifier;
  /** Invalidations that were begun and not finished. */
  #open = 0;

  constructor(host: Host, name: string) {
    this.#host = host;
    this.#name = name;
    this.#notifier = new MmuIntervalNotifier({
      name,
      invalidate: (_notifier, range, seq) => this.#invalidate(range, seq),
    });
  }

  get mm(): AddressSpace {
    return this.#notifier.mm;
  }

  async insert(mm: AddressSpace, start: number, length: number): Promise<void> {
    await this.#notifier.insert(mm, start, length);
  }

  /** After it no callback may come. */
  async remove(): Promise<void> {
    // First, because afterwards nobody tells this device of changes.
    this.table.clear();
    await this.#notifier.remove();
    if (this.#open > 0) {
      this.#host.fail("I-MN-1", `${this.#name}: removed with ${this.#open} invalidations unfinished`);
    }
  }

  /** Faults pages in for writing and takes them over, as often as something comes in between. */
  async fault(start: number, length: number): Promise<void> {
    const notifier = this.#notifier;
    const hmmPfns = new Uint32Array(length / PAGE_SIZE);
    const at: VirtRange = { start: virtAddr(start, "fault"), end: virtAddr(start + length, "fault") };
    const range = { notifier, notifierSeq: 0, ...at, hmmPfns, defaultFlags: HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE };
    for (;;) {
      hmmPfns.fill(0);
      await hmmRangeFaultUnlocked(range);
      using _ = await this.#update.lock();
      if (!notifier.readRetry(range.notifierSeq)) {
        for (const [i, entry] of hmmPfns.entries()) {
          this.table.set(vpnOf(at.start) + i, { pfn: hmmPfnToPfn(entry), write: (entry & HMM_PFN_WRITE) !== 0 });
        }
        return;
      }
    }
  }

  async #invalidate(range: MmuNotifierRange, seq: number): Promise<() => Promise<void>> {
    this.#host.note(() => `${this.#name}.invalidate`);
    if (!this.#notifier.isInserted) {
      this.#host.fail("I-MN-3", `${this.#name}: a callback after it was removed`);
    }
    this.#open++;
    using _ = await this.#update.lock();
    this.#notifier.setSeq(seq);
    for (const vpn of [...this.table.keys()]) {
      if (vpn >= Math.floor(range.start / PAGE_SIZE) && vpn * PAGE_SIZE < range.end) {
        this.table.delete(vpn);
      }
    }
    return async () => {
      await undefined;
      this.#open--;
      this.#host.note(() => `${this.#name}.finish`);
    };
  }
}
