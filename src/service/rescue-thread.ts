/**
 * The thread that outlives service threads. While all is well it does nothing but look for signs of life. When a service dies
 * or hangs, threads may be waiting for pages that nobody will bring: that is reported in shared memory, every window is
 * replaced by the poison pattern, and then the waiting threads are woken.
 */
import { parentPort } from "node:worker_threads";
import { collectSometimes } from "../platform/userfaultfd/collect.ts";
import { FaultLog } from "../platform/userfaultfd/fault-log.ts";
import { Libc } from "../platform/userfaultfd/libc.ts";
import { type OwnDescriptor, ownDescriptor } from "../platform/userfaultfd/own-descriptor.ts";
import { Poison, type TrappedMemory } from "../platform/userfaultfd/poison.ts";
import { type Rescued, type Told, type Watched, Word } from "./session.ts";

/** How often signs of life are looked for. */
const LOOK_MS = 100;

// Now, not when it is needed: by then the process may be ending.
const libc = Libc.load();
let poison: Poison | undefined;
const services = new Map<number, Service>();
let looking: NodeJS.Timeout | undefined;

const tell = (rescued: Rescued) => parentPort?.postMessage(rescued);

class Service {
  readonly #watched: Watched;
  readonly #memories = new Map<number, TrappedMemory>();
  #uffd: OwnDescriptor | undefined;
  #beat = 0;
  #silent = 0;
  #told = false;
  #over = false;

  constructor(watched: Watched) {
    this.#watched = watched;
    watched.service.on("message", (told: Told) => this.#hear(told));
    watched.service.on("close", () => this.#threadEnded());
  }

  #hear({ memory, forget, uffd, closed }: Told): void {
    if (memory !== undefined) {
      this.#memories.set(memory.buffer === undefined ? memory.address : libc.addressOf(memory.buffer), memory);
    }
    if (forget !== undefined && this.#memories.delete(forget)) {
      collectSometimes();
    }
    if (uffd !== undefined) {
      this.#uffd = ownDescriptor(libc, uffd);
      poison ??= new Poison(libc);
    }
    if (closed) {
      this.#end({});
      this.#watched.service.close();
    }
  }

  /** Only for the first end is anybody told. */
  #end(how: Partial<Rescued>): void {
    if (!this.#over) {
      this.#over = true;
      services.delete(this.#watched.id);
      this.#memories.clear();
      this.#uffd?.close();
      collectSometimes();
      tell({ id: this.#watched.id, over: true, ...how });
      if (services.size === 0) {
        clearInterval(looking);
        looking = undefined;
      }
    }
  }

  #poison(): void {
    const { log, words } = this.#watched;
    if (Atomics.load(words, Word.LetGo) === 0) {
      new FaultLog(log).report("ESRCH", 0);
      poison?.spread([...this.#memories.values()], this.#uffd?.fd ?? -1);
      Atomics.store(words, Word.LetGo, 1);
      Atomics.notify(words, Word.LetGo);
    }
  }

  #threadEnded(): void {
    const { words } = this.#watched;
    if (!this.#over) {
      this.#poison();
    }
    Atomics.store(words, Word.Quiet, 1);
    Atomics.notify(words, Word.Quiet);
    this.#end({ poisoned: true });
  }

  /** `elapsed` is time in which this process ran: of one that was stopped, none has passed. */
  look(elapsed: number): void {
    const { words, stuckMs, id } = this.#watched;
    const beat = Atomics.load(words, Word.Beat);
    // Before the first one the thread starts, which takes as long as it takes.
    if (beat !== this.#beat || beat === 0) {
      this.#beat = beat;
      this.#silent = 0;
      this.#told = false;
      return;
    }
    this.#silent += elapsed;
    if (this.#silent >= stuckMs) {
      this.giveUp();
    } else if (this.#silent >= stuckMs / 4 && !this.#told) {
      this.#told = true;
      tell({ id, silent: Math.round(this.#silent) });
    }
  }

  giveUp(): void {
    Atomics.store(this.#watched.words, Word.GivenUp, 1);
    this.#poison();
    this.#end({ poisoned: true, stuck: true });
  }
}

parentPort?.on("message", ({ watch, giveUp }: { readonly watch?: Watched; readonly giveUp?: number }) => {
  if (watch !== undefined) {
    services.set(watch.id, new Service(watch));
    let last = performance.now();
    looking ??= setInterval(() => {
      const now = performance.now();
      const elapsed = Math.min(now - last, 2 * LOOK_MS);
      last = now;
      for (const service of [...services.values()]) {
        service.look(elapsed);
      }
    }, LOOK_MS);
  }
  if (giveUp !== undefined) {
    services.get(giveUp)?.giveUp();
  }
});
