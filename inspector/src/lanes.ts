/** Which lane of the timeline an event is in. */
import { TRACE_NAMES, type TraceName } from "../../src/base/index.ts";
import { type EventStore, kindOf, SECOND_FLAG } from "../../src/inspect/index.ts";

const HOST: readonly (readonly [string, readonly TraceName[]])[] = [
  ["CPU faults", ["mm.fault"]],
  ["faults for devices", []],
  ["migrations", ["mm.migrate", "mm.poison"]],
  ["invalidations", ["mmu.start", "mmu.end"]],
  ["lock waits", ["sync.wait"]],
  ["mappings", ["mm.map", "mm.unmap", "mmu.notifier"]],
];

const DEVICE: readonly (readonly [string, readonly TraceName[]])[] = [
  ["dispatches", ["gpu.dispatch"]],
  ["rounds", ["gpu.round"]],
  ["faults", ["gpu.fault", "gpu.service", "gpu.coalesce", "gpu.prefetch"]],
  ["uploads", ["gpu.upload"]],
  ["readbacks", ["gpu.readback"]],
  ["evictions", ["gpu.evict"]],
  ["waits", ["gpu.fence", "gpu.throttle"]],
  ["pipelines", ["gpu.compile"]],
];

/** Of a theme's lanes. */
const COLOURS = 7;

const FAULT = kindOf("mm.fault");
const FOR_DEVICES = 1;

/** Rows of one lane by the time at which they began. */
export interface Lane {
  readonly label: string;
  readonly colour: number;
  rows: Uint32Array;
  count: number;
  /** Microseconds: no event of the lane is longer. */
  longest: number;
  sorted: boolean;
}

/** Sorts rows into lanes as they come. */
export class Lanes {
  readonly #store: EventStore;
  readonly #lanes = new Map<string, Lane>();
  readonly #groups: (readonly [group: string, index: number, device: boolean])[];
  #row = 0;

  constructor(store: EventStore) {
    this.#store = store;
    this.#groups = TRACE_NAMES.map(() => ["mappings", HOST.length - 1, false] as const);
    for (const [groups, device] of [
      [HOST, false],
      [DEVICE, true],
    ] as const) {
      for (const [index, [label, names]] of groups.entries()) {
        for (const name of names) {
          this.#groups[kindOf(name)] = [label, index, device];
        }
      }
    }
  }

  /** Lanes that have events: each device's own, then those of the host. */
  all(): readonly Lane[] {
    return [...this.#lanes.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, lane]) => lane);
  }

  /** Takes the rows that came since. */
  update(): void {
    const { columns: c, count } = this.#store;
    // Lanes of this call by kind and device: looked up once for many rows.
    const near = new Map<number, Lane>();
    for (let row = this.#row; row < count; row++) {
      const forDevice = c.kind[row] === FAULT && (c.flags[row] & SECOND_FLAG) !== 0;
      const key = forDevice ? -1 : c.kind[row] * 65_536 + c.device[row];
      let lane = near.get(key);
      if (lane === undefined) {
        lane = forDevice
          ? this.#lane(HOST[FOR_DEVICES][0], FOR_DEVICES, undefined)
          : this.#laneOf(c.kind[row], c.device[row]);
        near.set(key, lane);
      }
      if (lane.count === lane.rows.length) {
        const next = new Uint32Array(lane.rows.length * 2);
        next.set(lane.rows);
        lane.rows = next;
      }
      lane.sorted &&= lane.count === 0 || c.time[lane.rows[lane.count - 1]] <= c.time[row];
      lane.rows[lane.count++] = row;
      lane.longest = Math.max(lane.longest, c.duration[row]);
    }
    this.#row = count;
    for (const lane of this.#lanes.values()) {
      if (!lane.sorted) {
        lane.rows.subarray(0, lane.count).sort((a, b) => c.time[a] - c.time[b]);
        lane.sorted = true;
      }
    }
  }

  #laneOf(kind: number, device: number): Lane {
    const [label, index, isDevice] = this.#groups[kind];
    return this.#lane(label, index, isDevice ? this.#store.text(device) : undefined);
  }

  #lane(label: string, index: number, device: string | undefined): Lane {
    const isDevice = device !== undefined;
    const owner = device ?? "host";
    const key = `${isDevice ? 0 : 1} ${owner} ${String(index).padStart(2, "0")}`;
    let lane = this.#lanes.get(key);
    if (lane === undefined) {
      const colour = (isDevice ? index : index + 2) % COLOURS;
      lane = { label: `${owner} · ${label}`, colour, rows: new Uint32Array(256), count: 0, longest: 0, sorted: true };
      this.#lanes.set(key, lane);
    }
    return lane;
  }
}

/** The first of a lane's rows, from row `after` on, that begins at or after a time. */
export function firstFrom(lane: Lane, times: Float64Array, time: number, after = 0): number {
  let [low, high] = [after, lane.count];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (times[lane.rows[middle]] < time) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}
