/** What a program holds, on either MMU: memory, a device, files, and what goes wrong outside of its calls. */
import { assertOptions, type KernelError } from "../base/index.ts";
import type { AdapterReport } from "../platform/adapter.ts";
import { type FaultError, FaultLog } from "../platform/userfaultfd/fault-log.ts";
import { assertWait } from "../sync/index.ts";
import type { MmuChoice } from "./options.ts";
import type { Channel, ClientFileOptions, ClientUrlOptions, FileSource, ServiceCounts } from "./protocol.ts";
import { SharedDevice } from "./shared-device.ts";
import { type Locate, type SharedFile, SharedMemory, sharedFile } from "./shared-memory.ts";

/**
 * Something went wrong that no call reports. The `error` says what: EHWPOISON, EIO, ENOMEM, EFAULT of a plain access;
 * EACCES a plain write to memory that may only be read; ENODEV the device was lost; EBUSY the service thread has not
 * answered for long; ESRCH it is gone.
 */
export class MemoryErrorEvent extends Event {
  declare readonly type: "error";
  readonly error: KernelError;
  readonly message: string;
  /** Where it was, as `mapping.start` counts; undefined when it is about no page. */
  readonly address: number | undefined;

  /** @internal */
  constructor(error: KernelError, address?: number) {
    super("error");
    this.error = error;
    this.message = error.message;
    this.address = address;
  }
}

/** Where a client's service runs, and how it ends. */
export interface ServiceHandle {
  readonly channel: Channel;
  readonly mmu: MmuChoice;
  readonly locate: Locate;
  /** Resolves when the service has let go of everything. */
  readonly ended: () => Promise<void>;
  /** Told of an error that nobody listens for. */
  readonly unheard: (error: KernelError) => void;
  /** See {@link SharedMirror.provoke}. */
  readonly provoke: (what: "die" | "hang" | "stick") => Promise<void>;
}

/**
 * A client of a service. Dispose it with `await using`, or call `close`. Errors outside of calls come as `error` events
 * ({@link MemoryErrorEvent}); when nobody listens, as a warning of the process.
 */
export class SharedMirror extends EventTarget implements AsyncDisposable {
  readonly mm: SharedMemory;
  readonly device: SharedDevice;
  readonly mmu: MmuChoice;
  /** Which adapter was chosen; undefined when none was asked for. */
  readonly adapter: AdapterReport | undefined;
  readonly #service: ServiceHandle;
  readonly #log: FaultLog;
  /** Those who hear of errors, and whether only of one. */
  readonly #listeners = new Map<unknown, boolean>();
  #closed: Promise<void> | undefined;

  /** @internal Use open of the package. */
  constructor(
    service: ServiceHandle,
    { adapter, log }: { readonly adapter: AdapterReport | undefined; readonly log: SharedArrayBuffer },
  ) {
    super();
    this.mm = new SharedMemory(service.channel, service.locate);
    this.device = new SharedDevice(service.channel);
    this.mmu = service.mmu;
    this.adapter = adapter;
    this.#service = service;
    this.#log = new FaultLog(log);
  }

  /** @internal Tells listeners. */
  report(error: KernelError, address?: number): void {
    if (this.#listeners.size === 0) {
      this.#service.unheard(error);
    }
    this.dispatchEvent(new MemoryErrorEvent(error, address));
    for (const [listener, once] of this.#listeners) {
      if (once) {
        this.#listeners.delete(listener);
      }
    }
  }

  override addEventListener(
    type: "error",
    listener: ((event: MemoryErrorEvent) => void) | { handleEvent(event: MemoryErrorEvent): void } | null,
    options?: AddEventListenerOptions | boolean,
  ): void {
    const { once = false, signal } = typeof options === "object" ? options : {};
    // As EventTarget does: the first time counts.
    if (listener === null || signal?.aborted || this.#listeners.has(listener)) {
      return;
    }
    this.#listeners.set(listener, once);
    signal?.addEventListener("abort", () => this.#listeners.delete(listener), { once: true });
    super.addEventListener(type, listener as EventListener, options);
  }

  override removeEventListener(type: "error", listener: unknown, options?: EventListenerOptions | boolean): void {
    this.#listeners.delete(listener);
    super.removeEventListener(type, listener as EventListener | null, options);
  }

  /** Shared memory in which errors of plain accesses are counted: post it to workers, `new FaultLog(it)` there. */
  get faultLog(): FaultLog {
    return this.#log;
  }

  /** Errors of plain accesses so far: one atomic load. A program that cares looks after each batch of work. */
  get faultErrorCount(): number {
    return this.#log.count;
  }

  /** What went wrong in plain accesses, from the `from`-th error on. `ESRCH`: the service died, and all is poisoned. */
  faultErrors(from = 0): FaultError[] {
    return this.#log.since(from);
  }

  /**
   * Opens a file to map it: a path on Node; a File, another Blob, or a handle in browsers.
   * @throws KernelError as openFileObject, as openBrowserFile
   */
  async openFile(file: FileSource, options: ClientFileOptions = {}): Promise<SharedFile> {
    const { channel } = this.#service;
    return sharedFile(channel, await channel.call("openFile", { file, ...options }));
  }

  /** Opens an HTTP(S) URL to map it. The signal is for the opening. @throws KernelError as openUrlObject */
  async openUrl(
    url: string | URL,
    options: ClientUrlOptions & { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<SharedFile> {
    assertOptions("open", options);
    const { channel } = this.#service;
    const { signal, ...rest } = options;
    assertWait("open", { signal });
    return sharedFile(channel, await channel.call("openUrl", { url: String(url), ...rest }, signal));
  }

  /** Page faults served so far; all zeros on the software MMU. */
  counts(): Promise<ServiceCounts> {
    return this.#service.channel.call("counts", undefined);
  }

  /**
   * @internal For tests: the service thread dies or hangs here and now, or sticks in the next fault for ever. Resolves when
   * all is poisoned.
   */
  provoke(what: "die" | "hang" | "stick"): Promise<void> {
    return this.#service.provoke(what);
  }

  /**
   * Ends everything: files are written back, threads that wait for a page go on and see zeros, the service ends. Idempotent.
   * @throws KernelError EIO, ENOSPC a file cannot be written back; everything is ended all the same; ESRCH the service had died
   */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    try {
      await this.#service.channel.call("close", undefined);
    } finally {
      await this.#service.ended();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
