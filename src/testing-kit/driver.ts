/** What the conformance suite asks of a driver, and how it is told about the test runner. */
import type { MaybePromise } from "../base/index.ts";
import type { AddressSpace, CpuMmu } from "../mm/index.ts";

/** A device that is open for one address space. Accesses are in whole words of 4 bytes. */
export interface ConformanceDevice {
  /** Reads memory through the device. Rejects with a KernelError where the CPU could not read either. */
  read(addr: number, length: number): Promise<Uint8Array>;
  /** Writes memory through the device. */
  write(addr: number, bytes: Uint8Array): Promise<void>;
  /** What the CPU's page table grants for each page: `none`, `r` or `rw`. */
  snapshot?(addr: number, length: number): Promise<readonly string[]>;
  /** Moves the pages into the device's own memory. */
  migrate?(addr: number, length: number): Promise<unknown>;
  /** Closes this open only. */
  close?(): Promise<unknown>;
}

/** A driver that was loaded. */
export interface ConformanceDriver {
  /** Opens the device for an address space. Rejects with ENODEV after `unload`. */
  open(mm: AddressSpace): MaybePromise<ConformanceDevice>;
  /** Closes what is open; on return nothing of the driver runs or will be called. Idempotent. */
  unload(): Promise<unknown>;
}

/** `test` of vitest, of node:test, or of whatever calls `body` and fails when it rejects. */
export type TestFunction = (name: string, body: () => Promise<void>) => unknown;

/** What {@link conformance} is told. */
export interface ConformanceOptions {
  /** Loads the driver anew, for one test. */
  readonly openDriver: () => MaybePromise<ConformanceDriver>;
  readonly test: TestFunction;
  /** Begins each test's name. */
  readonly name?: string | undefined;
  /** The MMUs to run on, by name. Default: the software MMU. */
  readonly mmus?: Readonly<Record<string, () => CpuMmu>> | undefined;
  /** Names of tests that this driver is not for, with the reason: they are left out. */
  readonly except?: Readonly<Record<string, string>> | undefined;
}
