/**
 * Tracepoints. Nobody listens: a place costs one look at {@link traceOn}, and makes no object.
 *
 *     const since = traceNow();
 *     …
 *     if (traceOn) {
 *       trace("gpu.upload", { device, space, start, end, pages, bytes }, since);
 *     }
 */
import type { TraceFields, TraceName } from "./trace-points.ts";

/** One event as a listener gets it. */
export interface TraceEvent<N extends TraceName = TraceName> {
  readonly name: N;
  readonly fields: TraceFields<N>;
  /** Milliseconds of `performance.now()` at the start. */
  readonly at: number;
  /** Milliseconds; 0 for instants. */
  readonly duration: number;
}

/** Called synchronously, in the middle of what is traced: it must neither throw nor call back into the library. */
export type TraceListener = (event: TraceEvent) => void;

/** What can tell a listener that comes late about what is there already. */
export type TraceSource = () => void;

/** True while somebody listens. Look at it before making an event's fields. */
export let traceOn = false;

let listeners: readonly TraceListener[] = [];

/** Calls `listener` for every event until the returned function is called, which is idempotent. */
export function listenToTrace(listener: TraceListener): () => void {
  const own: TraceListener = (event) => listener(event);
  listeners = [...listeners, own];
  traceOn = true;
  return () => {
    listeners = listeners.filter((other) => other !== own);
    traceOn = listeners.length > 0;
  };
}

/** The start of a slice; 0 when nobody listens. */
export function traceNow(): number {
  return traceOn ? performance.now() : 0;
}

/**
 * Sends an event. `since` is what {@link traceNow} said at the start of a slice; a slice that began while nobody listened
 * has no known start and is sent as if it took no time.
 */
export function trace<N extends TraceName>(name: N, fields: TraceFields<N>, since = 0): void {
  const now = performance.now();
  const at = since === 0 ? now : since;
  const event = { name, fields, at, duration: now - at } as unknown as TraceEvent;
  const told = listeners;
  for (let i = 0; i < told.length; i++) {
    told[i](event);
  }
}

/** Sends an event that another thread sent, its time already counted as this one does. */
export function relayTrace(event: TraceEvent): void {
  for (const listener of listeners) {
    listener(event);
  }
}

const numbers = new WeakMap<object, number>();
let lastNumber = 0;

/** A small number for an address space, the same as long as it lives. */
export function traceIdOf(space: object): number {
  let id = numbers.get(space);
  if (id === undefined) {
    id = ++lastNumber;
    numbers.set(space, id);
  }
  return id;
}
