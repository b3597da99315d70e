/** What the threads of one service share beside messages: a few words. */
import type { MessagePort } from "node:worker_threads";
import type { TrappedMemory } from "../platform/userfaultfd/poison.ts";
import type { ServiceOptions } from "./options.ts";

/** Indices of the words. */
export const Word = {
  /** 1: nobody waits for a page of this service any more. */
  LetGo: 0,
  /** Goes up while the service thread does anything, and every {@link BEAT_MS} when it does nothing. */
  Beat: 1,
  /** 1: the service was given up. Its thread must do nothing more. */
  GivenUp: 2,
  /** 1: the thread has nothing under way that would take the process along if it were ended from outside. */
  Quiet: 3,
} as const;

/** Words of {@link Session.words}. */
export const WORDS = 4;

/** How often a service thread that has nothing to do shows that it is alive. */
export const BEAT_MS = 100;

/** A service, as its thread is told of it. */
export interface Session {
  readonly options: ServiceOptions;
  readonly log: SharedArrayBuffer;
  readonly words: Int32Array;
  /** To the client. */
  readonly client: MessagePort;
  /** To the thread that outlives this one. */
  readonly rescue: MessagePort;
  /** Events of tracepoints are wanted. */
  readonly traced: boolean;
}

/** A service, as the rescue is told of it. */
export interface Watched {
  readonly id: number;
  readonly log: SharedArrayBuffer;
  readonly words: Int32Array;
  readonly service: MessagePort;
  readonly stuckMs: number;
}

/** What the service tells the rescue. */
export interface Told {
  /** Memory of applications that may trap: kept there, so that its addresses stay its own. */
  readonly memory?: TrappedMemory;
  /** The address of memory that traps no more. */
  readonly forget?: number;
  /** A descriptor of the userfaultfd that is the rescue's from here on. */
  readonly uffd?: number;
  /** The service ended as it should. */
  readonly closed?: true;
}

/** What the rescue tells the thread that opened the service. */
export interface Rescued {
  readonly id: number;
  /** Milliseconds without a sign of life, so far. */
  readonly silent?: number;
  /** All is over; `poisoned` when the service did not end by itself. */
  readonly over?: true;
  readonly poisoned?: boolean;
  readonly stuck?: boolean;
}
