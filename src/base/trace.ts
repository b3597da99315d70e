/**
 * Tracepoints. Nobody listens: a place costs one look at {@link traceOn}, and makes no object.
 *
 *     const since = traceNow();
 *     …
 *     if (traceOn) {
 *       trace("gpu.upload", { device, space, start, end, pages, bytes }, since);
 *     }
 */
import { addrOf, PAGE_SIZE } from "./addr.ts";
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

/**
 * A listener that gets events in parts, so that no object need be made of them. What holds for a {@link TraceListener} holds
 * here. The events that come with every page have calls of their own, in page numbers: what they would cost as objects is
 * more than all else of an event.
 */
export abstract class TraceSink {
  abstract take(name: TraceName, fields: TraceFields, at: number, duration: number): void;

  fault(
    space: number,
    vpn: number,
    vpnEnd: number,
    write: boolean,
    device: boolean,
    at: number,
    duration: number,
  ): void {
    this.take("mm.fault", { space, start: addrOf(vpn), end: addrOf(vpnEnd), write, device }, at, duration);
  }

  start(
    space: number,
    vpn: number,
    vpnEnd: number,
    event: string,
    blockable: boolean,
    at: number,
    duration: number,
  ): void {
    this.take("mmu.start", { space, start: addrOf(vpn), end: addrOf(vpnEnd), event, blockable }, at, duration);
  }

  end(space: number, vpn: number, vpnEnd: number, event: string, at: number): void {
    this.take("mmu.end", { space, start: addrOf(vpn), end: addrOf(vpnEnd), event }, at, 0);
  }

  /**
   * A write fault that was announced, with nothing in between: mmu.start from `told` on and mm.fault from `at` on, both up to
   * `now`, and mmu.end.
   */
  cleared(space: number, vpn: number, vpnEnd: number, at: number, told: number, now: number): void {
    this.start(space, vpn, vpnEnd, "clear", true, told, now - told);
    this.fault(space, vpn, vpnEnd, true, false, at, now - at);
    this.end(space, vpn, vpnEnd, "clear", now);
  }

  upload(device: string, space: number, vpn: number, vpnEnd: number, at: number, duration: number): void {
    const pages = vpnEnd - vpn;
    const [start, end] = [addrOf(vpn), addrOf(vpnEnd)];
    this.take("gpu.upload", { device, space, start, end, pages, bytes: pages * PAGE_SIZE }, at, duration);
  }
}

/** True while somebody listens. Look at it before making an event's fields. */
export let traceOn = false;

let sinks: readonly TraceSink[] = [];
/** When the last event was sent: in an array, because a variable's new number is a new object. */
const latest = new Float64Array(1);
/** Events that were sent. */
export let traceCount = 0;

/** Calls `listener` for every event until the returned function is called, which is idempotent. */
export function listenToTrace(listener: TraceListener): () => void {
  return addTraceSink(new ListenerSink(listener));
}

class ListenerSink extends TraceSink {
  readonly #listener: TraceListener;

  constructor(listener: TraceListener) {
    super();
    this.#listener = listener;
  }

  override take(name: TraceName, fields: TraceFields, at: number, duration: number): void {
    this.#listener({ name, fields, at, duration } as unknown as TraceEvent);
  }
}

/** {@link listenToTrace} for who hears a million events. One sink may be added once at a time. */
export function addTraceSink(sink: TraceSink): () => void {
  setSinks([...sinks, sink]);
  return () => setSinks(sinks.filter((other) => other !== sink));
}

const watchers = new Set<(on: boolean) => void>();

/** Calls `change` whenever the first begins to listen or the last has stopped, until the returned function is called. */
export function watchTrace(change: (on: boolean) => void): () => void {
  watchers.add(change);
  return () => void watchers.delete(change);
}

function setSinks(next: readonly TraceSink[]): void {
  sendHeld();
  sinks = next;
  if (traceOn !== next.length > 0) {
    traceOn = next.length > 0;
    for (const change of [...watchers]) {
      change(traceOn);
    }
  }
}

/** The start of a slice; 0 when nobody listens. */
export function traceNow(): number {
  return traceOn ? performance.now() : 0;
}

/** When the last event was sent. What follows it at once happens then too: the clock costs more than the rest of an event. */
export function traceLatest(): number {
  return latest[0];
}

/**
 * Sends an event. `since` is what {@link traceNow} said at the start of a slice; a slice that began while nobody listened
 * has no known start and is sent as if it took no time. `now` is its end, where the caller knows it.
 */
export function trace<N extends TraceName>(name: N, fields: TraceFields<N>, since = 0, now = performance.now()): void {
  sendHeld();
  const at = since === 0 ? now : since;
  latest[0] = now;
  traceCount++;
  const told = sinks;
  for (let i = 0; i < told.length; i++) {
    told[i].take(name, fields as TraceFields, at, now - at);
  }
}

/**
 * The start of an invalidation that was over at once, and the fault that asked for it: held back until the invalidation
 * ends, which is in the same run to completion, because the three of them are told in one call and by three looks at the clock.
 * Whatever else is sent comes after them.
 */
const held = { what: 0 as 0 | 1 | 2, space: 0, vpn: 0, vpnEnd: 0 };
const [NOTHING, STARTED, FAULTED] = [0, 1, 2] as const;
/** When its fault began, when notifiers were told, and when they had let go. */
const heldTimes = new Float64Array(3);

function isHeld(what: 0 | 1 | 2, space: number, vpn: number, vpnEnd: number, now: number): boolean {
  return (
    held.what === what && held.space === space && held.vpn === vpn && held.vpnEnd === vpnEnd && heldTimes[2] === now
  );
}

function sendHeld(): void {
  const { what, space, vpn, vpnEnd } = held;
  if (what === NOTHING) {
    return;
  }
  held.what = NOTHING;
  const [at, told, now] = heldTimes;
  for (let i = 0; i < sinks.length; i++) {
    sinks[i].start(space, vpn, vpnEnd, "clear", true, told, now - told);
    if (what === FAULTED) {
      sinks[i].fault(space, vpn, vpnEnd, true, false, at, now - at);
    }
  }
}

/** Sends mm.fault. `since` and `now` are as for {@link trace}. */
export function traceFault(
  space: number,
  vpn: number,
  vpnEnd: number,
  write: boolean,
  device: boolean,
  since: number,
  now = performance.now(),
): void {
  const at = since === 0 ? now : since;
  latest[0] = now;
  traceCount++;
  if (write && !device && isHeld(STARTED, space, vpn, vpnEnd, now)) {
    held.what = FAULTED;
    heldTimes[0] = at;
    return;
  }
  sendHeld();
  for (let i = 0; i < sinks.length; i++) {
    sinks[i].fault(space, vpn, vpnEnd, write, device, at, now - at);
  }
}

/** Sends mmu.start. `since` is as for {@link trace}. */
export function traceStart(
  space: number,
  vpn: number,
  vpnEnd: number,
  event: string,
  blockable: boolean,
  since: number,
): void {
  const now = performance.now();
  const at = since === 0 ? now : since;
  sendHeld();
  latest[0] = now;
  traceCount++;
  for (let i = 0; i < sinks.length; i++) {
    sinks[i].start(space, vpn, vpnEnd, event, blockable, at, now - at);
  }
}

/** {@link traceStart} of a blockable "clear" of which {@link traceEnd} is called in the same run to completion. */
export function traceClearStart(space: number, vpn: number, vpnEnd: number, since: number): void {
  sendHeld();
  const now = performance.now();
  latest[0] = now;
  traceCount++;
  held.what = STARTED;
  held.space = space;
  held.vpn = vpn;
  held.vpnEnd = vpnEnd;
  heldTimes[1] = since === 0 ? now : since;
  heldTimes[2] = now;
}

/** Sends mmu.end, which was at `now`. */
export function traceEnd(space: number, vpn: number, vpnEnd: number, event: string, now: number): void {
  latest[0] = now;
  traceCount++;
  if (isHeld(FAULTED, space, vpn, vpnEnd, now)) {
    held.what = NOTHING;
    for (let i = 0; i < sinks.length; i++) {
      sinks[i].cleared(space, vpn, vpnEnd, heldTimes[0], heldTimes[1], now);
    }
    return;
  }
  sendHeld();
  for (let i = 0; i < sinks.length; i++) {
    sinks[i].end(space, vpn, vpnEnd, event, now);
  }
}

/** Sends gpu.upload, which began at `since` and was over at `now`. */
export function traceUpload(
  device: string,
  space: number,
  vpn: number,
  vpnEnd: number,
  since: number,
  now: number,
): void {
  const at = since === 0 ? now : since;
  sendHeld();
  latest[0] = now;
  traceCount++;
  for (let i = 0; i < sinks.length; i++) {
    sinks[i].upload(device, space, vpn, vpnEnd, at, now - at);
  }
}

/** Sends an event that another thread sent, its time already counted as this one does. */
export function relayTrace({ name, fields, at, duration }: TraceEvent): void {
  for (const sink of sinks) {
    sink.take(name, fields, at, duration);
  }
}

/** What events name by a small number. */
export interface TraceSpace {
  /** 0 until the first event names it. Written by {@link traceIdOf} only. */
  traceId: number;
}

let lastNumber = 0;

/** A small number for an address space, the same as long as it lives. */
export function traceIdOf(space: TraceSpace): number {
  if (space.traceId === 0) {
    space.traceId = ++lastNumber;
  }
  return space.traceId;
}
