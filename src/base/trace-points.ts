/** Every tracepoint as data: what it says, and its fields with their units. docs/tracing.md is compared with this table. */

/** Units of fields. Addresses are bytes of an address space; `space` numbers address spaces in the order they were seen. */
export type TraceUnit = "address" | "bytes" | "pages" | "count" | "space" | "text" | "flag";

/** What the values of a unit are in JavaScript. */
export type TraceValue<U extends TraceUnit> = U extends "text" ? string : U extends "flag" ? boolean : number;

interface Tracepoint {
  readonly doc: string;
  /** A slice has a duration. */
  readonly shape: "slice" | "instant" | "counter";
  readonly fields: Readonly<Record<string, TraceUnit>>;
}

const RANGE = { space: "space", start: "address", end: "address" } as const;

/** Name, meaning and fields of each tracepoint. Names and fields are part of the package's interface. */
export const TRACEPOINTS = {
  "mm.map": {
    doc: "A range was mapped, or is mapped when a listener comes.",
    shape: "instant",
    fields: { ...RANGE, name: "text", write: "flag" },
  },
  "mm.unmap": { doc: "A range was unmapped.", shape: "instant", fields: RANGE },
  "mm.fault": {
    doc: "Pages were missing and are there: for a lease of the CPU, for its access to a plain array, or for a device that reads through HMM.",
    shape: "slice",
    fields: { ...RANGE, write: "flag", device: "flag" },
  },
  "mm.migrate": {
    doc: "Pages moved. To the host because of a CPU fault, an eviction, a writeback, or a copy that was needed; to a device because a kernel writes them.",
    shape: "slice",
    fields: { ...RANGE, pages: "pages", to: "text", cause: "text" },
  },
  "mm.poison": { doc: "The only copy of pages was lost with its device.", shape: "instant", fields: RANGE },
  "mmu.start": {
    doc: "Notifiers have been told that entries of a range are about to change, and have let go of it.",
    shape: "slice",
    fields: { ...RANGE, event: "text", blockable: "flag" },
  },
  "mmu.end": { doc: "The change is done.", shape: "instant", fields: { ...RANGE, event: "text" } },
  "mmu.notifier": {
    doc: "A notifier was got, put, or freed. `users` are those left.",
    shape: "instant",
    fields: { space: "space", name: "text", what: "text", users: "count" },
  },
  "sync.wait": {
    doc: "A task had to wait for a lock of that class.",
    shape: "slice",
    fields: { lock: "text", mode: "text" },
  },
  "gpu.dispatch": {
    doc: "One dispatch, from the call to the end of the GPU's work. `restarts` are tries that an invalidation or a lease undid.",
    shape: "slice",
    fields: {
      device: "text",
      kernel: "text",
      mode: "text",
      bytes: "bytes",
      pages: "pages",
      restarts: "count",
      rounds: "count",
    },
  },
  "gpu.compile": {
    doc: "A pipeline was made of a kernel. Those of svm mode have several, some of which are made when they are first needed.",
    shape: "slice",
    fields: { device: "text", kernel: "text", pipeline: "text" },
  },
  "gpu.round": {
    doc: "One round of a kernel that follows pointers: serve what the last one missed, run, read the report.",
    shape: "slice",
    fields: { device: "text", kernel: "text", workgroups: "count", completed: "count", faults: "count" },
  },
  "gpu.fault": {
    doc: "A run of device pages that a round reported as missing.",
    shape: "instant",
    fields: { device: "text", ...RANGE, write: "flag", pages: "pages" },
  },
  "gpu.service": {
    doc: "The pages of a round were gathered: faulted, isolated, and on their way.",
    shape: "slice",
    fields: { device: "text", space: "space", faults: "count", pages: "pages", retry: "flag" },
  },
  "gpu.coalesce": {
    doc: "Faults became ranges, each of which is served as one.",
    shape: "instant",
    fields: { device: "text", faults: "count", ranges: "count" },
  },
  "gpu.upload": {
    doc: "Bytes of pages were put on their way to the device.",
    shape: "slice",
    fields: { device: "text", ...RANGE, pages: "pages", bytes: "bytes" },
  },
  "gpu.readback": {
    doc: "Pages came home from the device.",
    shape: "slice",
    fields: { device: "text", ...RANGE, pages: "pages", bytes: "bytes" },
  },
  "gpu.prefetch": {
    doc: "A run of device pages that was brought beside what was missed, or asked for by `prefetch`.",
    shape: "instant",
    fields: { device: "text", ...RANGE, pages: "pages" },
  },
  "gpu.evict": {
    doc: "Device memory was given up for other pages. `bytes` had to be brought home first.",
    shape: "slice",
    fields: { device: "text", ...RANGE, pages: "pages", bytes: "bytes" },
  },
  "gpu.fence": { doc: "Somebody waited for the GPU.", shape: "slice", fields: { device: "text", why: "text" } },
  "gpu.throttle": {
    doc: "A transfer waited for staging memory that was still in use.",
    shape: "slice",
    fields: { device: "text", pool: "text" },
  },
  "gpu.memory": {
    doc: "CPU pages of device memory: with a valid copy, of these with the only copy, and without any. Bytes moved since the device was opened.",
    shape: "counter",
    fields: {
      device: "text",
      resident: "pages",
      dirty: "pages",
      free: "pages",
      toDevice: "bytes",
      toHost: "bytes",
    },
  },
} as const satisfies Readonly<Record<string, Tracepoint>>;

/** The name of a tracepoint. */
export type TraceName = keyof typeof TRACEPOINTS;

/** The fields of a tracepoint. */
export type TraceFields<N extends TraceName = TraceName> = N extends TraceName
  ? { readonly [F in keyof (typeof TRACEPOINTS)[N]["fields"]]: TraceValue<FieldUnit<N, F>> }
  : never;

type FieldUnit<
  N extends TraceName,
  F extends keyof (typeof TRACEPOINTS)[N]["fields"],
> = (typeof TRACEPOINTS)[N]["fields"][F] extends TraceUnit ? (typeof TRACEPOINTS)[N]["fields"][F] : never;

/** All names, in the order of the table. */
export const TRACE_NAMES = Object.keys(TRACEPOINTS) as readonly TraceName[];
