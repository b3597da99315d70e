/** How events are written in a trace file: in which lane, and as what. */
import { TRACE_NAMES, TRACEPOINTS, type TraceName, type TraceUnit } from "../base/index.ts";
import { ROW_FIELDS } from "./event-chunk.ts";
import { type Piece, piece } from "./text-bytes.ts";

/** The one process of a file. */
export const PID = 1;

/** The lane that an event is drawn in; a device has its own set of them. */
const LANES: Readonly<Record<TraceName, string>> = {
  "mm.map": "mappings",
  "mm.unmap": "mappings",
  "mm.fault": "CPU faults",
  "mm.migrate": "migrations",
  "mm.poison": "migrations",
  "mmu.start": "invalidations",
  "mmu.end": "invalidations",
  "mmu.notifier": "notifiers",
  "sync.wait": "lock waits",
  "gpu.dispatch": "dispatches",
  "gpu.compile": "pipelines",
  "gpu.round": "rounds",
  "gpu.fault": "faults",
  "gpu.service": "faults",
  "gpu.coalesce": "faults",
  "gpu.upload": "transfers",
  "gpu.readback": "transfers",
  "gpu.prefetch": "faults",
  "gpu.evict": "evictions",
  "gpu.fence": "waits",
  "gpu.throttle": "waits",
  "gpu.memory": "memory",
};

/** The lane of those events of `mm.fault` that a device caused. */
const FAULTS_FOR_DEVICES = "faults for devices";

/** What fields are. */
export const [NUMBER, TEXT, FLAG] = [0, 1, 2];

/** How a name's events are written, made once. */
export interface Shape {
  readonly name: TraceName;
  readonly kind: "slice" | "instant" | "counter";
  readonly lane: number;
  /** Arrows begin or end at its events. */
  readonly arrows: boolean;
  /** Up to the number of the lane. */
  readonly head: Piece;
  /** What comes before each field's value. */
  readonly labels: readonly Piece[];
  /** What each of its fields is: {@link NUMBER}, {@link TEXT} or {@link FLAG}. */
  readonly kinds: readonly number[];
  /** Where a row has the field, or -1. */
  readonly device: number;
  readonly forDevice: number;
  readonly space: number;
  readonly start: number;
  readonly end: number;
}

/** All lanes that are of no device, and those of each device. */
export const LANE_NAMES = [...new Set(Object.values(LANES)), FAULTS_FOR_DEVICES];
/** The lane of faults that devices cause. */
export const FOR_DEVICES = LANE_NAMES.indexOf(FAULTS_FOR_DEVICES);

/** By the numbers of tracepoints. */
export const SHAPES: readonly Shape[] = TRACE_NAMES.map((name) => {
  const { fields, shape } = TRACEPOINTS[name];
  const keys = Object.keys(fields);
  const category = name.slice(0, name.indexOf("."));
  const at = (key: string) => (keys.includes(key) ? ROW_FIELDS + keys.indexOf(key) : -1);
  return {
    name,
    // An arrow binds to a slice: where one begins, an instant is a slice of a nanosecond.
    kind: name === "gpu.fault" ? "slice" : shape,
    lane: LANE_NAMES.indexOf(LANES[name]),
    head: piece(
      `,\n{"ph":"${shape === "slice" || name === "gpu.fault" ? "X" : "i"}","name":"${name}","cat":"${category}","pid":${PID},"tid":`,
    ),
    labels: keys.map((key, i) => piece(`${i === 0 ? "" : ","}"${key}":`)),
    kinds: Object.values<TraceUnit>(fields).map((unit) => (unit === "text" ? TEXT : unit === "flag" ? FLAG : NUMBER)),
    arrows: name === "gpu.fault" || name === "gpu.upload",
    // mm.fault has a flag of that name.
    device: "device" in fields && fields.device === "text" ? at("device") : -1,
    forDevice: "device" in fields && fields.device === "flag" ? at("device") : -1,
    space: at("space"),
    start: at("start"),
    end: at("end"),
  };
});
