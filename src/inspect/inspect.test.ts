import { describe, expect, it } from "vitest";
import type { TraceEvent, TraceFields, TraceName } from "../base/index.ts";
import { ChromeTraceWriter } from "../trace/index.ts";
import { analyse, analysing, EventStore, PAGE_STATES, rowAt, SpaceModel, TraceLoader } from "./index.ts";

type Step = { readonly [N in TraceName]: readonly [N, TraceFields<N>, number?] }[TraceName];

const range = (page: number, pages: number) => ({ space: 1, start: page * 4096, end: (page + pages) * 4096 });
const device = "gpu";

/** One page's life, a millisecond an event: mapped, written, sent up, written by a kernel, brought home, unmapped. */
const LIFE: readonly Step[] = [
  ["mm.map", { ...range(100, 4), name: "a", write: true }],
  ["mm.fault", { ...range(100, 2), write: true, device: false }],
  ["gpu.upload", { device, ...range(100, 2), pages: 2, bytes: 8192 }, 0.5],
  ["mmu.start", { ...range(100, 1), event: "migrate", blockable: true }],
  ["mm.migrate", { ...range(100, 1), pages: 1, to: "device", cause: "kernel write" }],
  ["gpu.memory", { device, resident: 2, dirty: 1, free: 6, toDevice: 8192, toHost: 0 }],
  ["gpu.readback", { device, ...range(100, 1), pages: 1, bytes: 4096 }, 0.7],
  ["mm.migrate", { ...range(100, 1), pages: 1, to: "host", cause: "cpu fault" }],
  ["mm.poison", range(101, 1)],
  ["sync.wait", { lock: "mmap", mode: "write" }, 0.9],
  ["mm.unmap", range(100, 4)],
];

function traceText(steps: readonly Step[]): string {
  let text = "";
  const decoder = new TextDecoder();
  const writer = new ChromeTraceWriter((piece) => {
    text += decoder.decode(piece, { stream: true });
  }, 0);
  steps.forEach(([name, fields, duration = 0], i) => {
    writer.add({ name, fields, at: i + 1 - duration, duration } as unknown as TraceEvent);
  });
  writer.end();
  return text;
}

function loaded(text: string, piece = 7): EventStore {
  const store = new EventStore(2);
  const loader = new TraceLoader(store);
  for (let i = 0; i < text.length; i += piece) {
    loader.push(text.slice(i, i + piece));
  }
  loader.end();
  return store;
}

const states = (model: SpaceModel) => [...model.states].map((state) => PAGE_STATES[state]);

describe("a loaded trace", () => {
  it("has the events of the file, whatever pieces it came in and however it is laid out", () => {
    const text = traceText(LIFE);
    const byLine = loaded(text);
    const pretty = loaded(JSON.stringify(JSON.parse(text), undefined, 2));
    const wrapped = loaded(JSON.stringify({ traceEvents: JSON.parse(text) }), 1000);
    expect(byLine.count).toBe(LIFE.length - 1);
    expect(byLine.samples).toEqual([
      { time: 6000, device: byLine.texts.indexOf(device), resident: 2, dirty: 1, free: 6, toDevice: 8192, toHost: 0 },
    ]);
    for (const other of [pretty, wrapped]) {
      expect(other.encode(0, 0)).toEqual(byLine.encode(0, 0));
    }
  });

  it("is refused when it is no trace, and read as far as it goes when the run was killed", () => {
    expect(() => loaded("<html>")).toThrow(/EINVAL: the file is no trace/);
    expect(() => loaded('{"a": 1}')).toThrow(/EINVAL/);
    const text = traceText(LIFE);
    expect(loaded(text.slice(0, text.indexOf("mm.poison") + 3)).count).toBe(7);
  });
});

describe("a store", () => {
  it("goes over the wire in parts, and parts that come twice change nothing", () => {
    const store = loaded(traceText(LIFE));
    const copy = new EventStore(1);
    const half = loaded(traceText(LIFE.slice(0, 5)));
    copy.append(half.encode(0, 0).buffer);
    expect(copy.count).toBe(5);
    expect(copy.append(store.encode(3, 0).buffer)).toBe(store.count - 5);
    expect(copy.append(store.encode(0, 0).buffer)).toBe(0);
    expect(copy.encode(0, 0)).toEqual(store.encode(0, 0));
    expect(() => new EventStore().append(store.encode(3, 0).buffer)).toThrow(/rows 0 to 3 are missing/);
  });

  it("begins with its earliest event, wherever that came from", () => {
    const store = new EventStore();
    expect([store.begin, store.end]).toEqual([0, 0]);
    store.add("gpu.fence", { device, why: "idle" }, 700, 10);
    store.add("gpu.fence", { device, why: "idle" }, 500, 300);
    const copy = new EventStore();
    copy.append(store.encode(0, 0).buffer);
    expect([store.begin, copy.begin, copy.end]).toEqual([500, 500, 800]);
  });

  it("leaves out what is over its limit and says how much", () => {
    const store = new EventStore(1, 2);
    for (let i = 0; i < 5; i++) {
      store.add("gpu.fence", { device, why: "idle" }, i, 0);
    }
    expect([store.count, store.dropped]).toEqual([2, 3]);
  });
});

describe("the model of a space", () => {
  it("knows each page's state at any time, forwards and backwards", () => {
    const store = loaded(traceText(LIFE));
    const model = new SpaceModel(store);
    model.update();
    expect(model.regions).toEqual([{ space: 1, page: 100, pages: 4, name: "a", slot: 0 }]);
    const at = (ms: number) => {
      model.seek(rowAt(store, ms * 1000));
      return states(model);
    };
    expect(at(1)).toEqual(["absent", "absent", "absent", "absent"]);
    expect(at(2)).toEqual(["written", "written", "absent", "absent"]);
    expect(at(3)).toEqual(["copy", "copy", "absent", "absent"]);
    expect(at(4)).toEqual(["migrating", "copy", "absent", "absent"]);
    expect(at(5)).toEqual(["device", "copy", "absent", "absent"]);
    expect(at(9)).toEqual(["copy", "poisoned", "absent", "absent"]);
    expect(at(11)).toEqual(["unmapped", "unmapped", "unmapped", "unmapped"]);
    expect(at(4)).toEqual(["migrating", "copy", "absent", "absent"]);
  });

  it("makes no region of what lies beside a mapping in a device page", () => {
    const model = new SpaceModel(
      loaded(
        traceText([
          ["mm.map", { ...range(101, 2), name: "a", write: true }],
          ["gpu.fault", { device, ...range(100, 4), write: false, pages: 4 }],
          ["gpu.upload", { device, ...range(100, 4), pages: 4, bytes: 16_384 }],
          ["mm.fault", { ...range(200, 1), write: true, device: false }],
        ]),
      ),
    );
    model.update();
    expect(model.regions.map(({ name, page, pages }) => [name, page, pages])).toEqual([
      ["a", 101, 2],
      ["memory", 200, 1],
    ]);
    expect(states(model)).toEqual(["copy", "copy", "written"]);
    expect(model.store.columns.duration[1]).toBe(0);
  });

  it("says the same wherever it comes from, with thousands of events", () => {
    const store = new EventStore();
    store.add("mm.map", { ...range(0, 64), name: "a", write: true }, 0, 0);
    let x = 1;
    for (let i = 1; i < 20_000; i++) {
      x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
      const at = range(x % 64, 1);
      const write = (x & 4096) !== 0;
      if (x & 8192) {
        store.add("mm.fault", { ...at, write, device: false }, i, 0);
      } else {
        store.add("gpu.upload", { device, ...at, pages: 1, bytes: 4096 }, i, 0);
      }
    }
    const model = new SpaceModel(store);
    model.update();
    for (const row of [19_000, 5, 12_345, 12_346, 0, 20_000]) {
      model.seek(row);
      const part = new EventStore();
      part.append(store.encode(0, 0).buffer);
      part.count = row;
      const fresh = new SpaceModel(part);
      fresh.update();
      expect(fresh.slots === 0 ? [] : [...model.states]).toEqual([...fresh.states]);
    }
  });
});

describe("the analysis", () => {
  it("counts bytes by cause, pages that go to and fro, locks, and names the largest causes with a remedy", () => {
    const store = loaded(traceText([...LIFE.slice(0, 8), ...LIFE.slice(2, 8), ...LIFE.slice(9)]));
    const model = new SpaceModel(store);
    model.update();
    const { bytes, thrashing, hottest, locks, causes } = analyse(model);
    expect(bytes.map(({ label, bytes: n }) => [label, n])).toEqual([
      ["to device: uploaded", 16_384],
      ["to host: cpu fault", 8192],
    ]);
    expect(thrashing).toEqual([{ slot: 0, events: 7, up: 2, written: 2, down: 2 }]);
    expect(hottest[0].slot).toBe(0);
    expect(locks).toEqual([
      { label: "mmap, write", count: 1, bytes: 0, ms: expect.closeTo(0.9, 3), most: expect.closeTo(0.9, 3) },
    ]);
    expect(causes.map(({ what }) => what)).toEqual([
      "pages to and fro between kernels and the CPU",
      "sending pages to the device",
      "waiting for locks",
    ]);
    expect(causes.every(({ remedy }) => remedy.length > 0)).toBe(true);
  });

  it("is made in steps, in between which others have their turn", () => {
    const store = new EventStore();
    store.add("mm.map", { ...range(0, 64), name: "a", write: true }, 0, 0);
    for (let i = 1; i < 50_000; i++) {
      store.add("gpu.upload", { device, ...range(i % 64, 1), pages: 1, bytes: 4096 }, i, 1);
    }
    const model = new SpaceModel(store);
    model.update();
    const steps = analysing(model);
    let made = steps.next();
    let turns = 0;
    for (; !made.done; made = steps.next()) {
      turns++;
    }
    expect(turns).toBeGreaterThan(10);
    expect(made.value.bytes).toEqual([expect.objectContaining({ count: 49_999, bytes: 49_999 * 4096 })]);
    expect(made.value).toEqual(analyse(model));
  });

  const causesIn = (steps: readonly Step[]) => {
    const model = new SpaceModel(
      loaded(traceText([["mm.map", { ...range(100, 20), name: "a", write: true }], ...steps])),
    );
    model.update();
    return analyse(model);
  };
  const upload = (page: number): Step => ["gpu.upload", { device, ...range(page, 1), pages: 1, bytes: 4096 }, 0.1];
  const evict = (page: number): Step => ["gpu.evict", { device, ...range(page, 1), pages: 1, bytes: 0 }];
  const missed = (page: number): Step => ["gpu.fault", { device, ...range(page, 1), write: false, pages: 1 }];
  const round: readonly Step[] = [
    ["gpu.fence", { device, why: "round" }, 0.9],
    ["gpu.round", { device, kernel: "k", workgroups: 9, completed: 8, faults: 1 }, 0.9],
  ];

  it("blames leases for the faults of leases alone, not for what a device reads through hmm", () => {
    const { causes } = causesIn([
      ["mm.fault", { ...range(100, 2), write: true, device: false }, 0.2],
      ["mm.fault", { ...range(102, 2), write: false, device: true }, 0.9],
    ]);
    expect(causes.map(({ what, ms }) => [what, Math.round(ms * 10)])).toEqual([
      ["finding memory for devices", 9],
      ["CPU faults", 2],
    ]);
    expect(causes[0].remedy).not.toMatch(/lease/);
    expect(causes[1].why).toBe("leases, or plain accesses, found 2 pages missing or read-only, in 1 fault");
  });

  it("speaks of changes between dispatches where many pages went up again, not where hardly one did", () => {
    const pages = Array.from({ length: 20 }, (_, i) => upload(100 + i));
    const remedy = (steps: readonly Step[]) => causesIn(steps).causes[0].remedy;
    expect(remedy([...pages, upload(100)])).toMatch(/^let the kernel read less/);
    expect(remedy([...pages, ...pages.slice(0, 10)])).toMatch(/^change fewer pages between dispatches/);
  });

  it("tells many small leases from a large one, also where a file has them as one slice", () => {
    const lease = (page: number, pages: number, took: number): Step => [
      "mm.fault",
      { ...range(page, pages), write: true, device: false },
      took,
    ];
    const causes = (leases: readonly Step[]) => {
      const events = leases.map(([name, fields, duration = 0], i) => ({ name, fields, at: 1 + i / 1000, duration }));
      let text = "";
      const writer = new ChromeTraceWriter((piece) => {
        text += new TextDecoder().decode(piece);
      }, 0);
      for (const event of events) {
        writer.add(event as unknown as TraceEvent);
      }
      writer.end();
      expect(text.match(/"mm\.fault"/g)).toHaveLength(1);
      const model = new SpaceModel(loaded(text));
      model.update();
      return analyse(model).causes;
    };
    const [small] = causes(Array.from({ length: 64 }, (_, i) => lease(100 + i, 1, 0.0005)));
    expect(small.why).toMatch(/found 64 pages missing or read-only, in 64 faults$/);
    expect(small.remedy).toMatch(/larger ranges/);
    const [large] = causes([lease(100, 64, 0.032)]);
    expect(large.why).toMatch(/found 64 pages missing or read-only, in 1 fault$/);
    expect(large.remedy).not.toMatch(/larger ranges/);
  });

  it("says of waits for the GPU what was waited for, and counts what rounds missed", () => {
    const { causes } = causesIn([
      missed(100),
      ...round,
      ["gpu.fence", { device, why: "dispatch" }, 0.5],
      ["gpu.fence", { device, why: "idle" }, 0.3],
    ]);
    expect(causes.map(({ what }) => what)).toEqual([
      "running kernels in rounds",
      "the kernels themselves",
      "waiting until the device is idle",
    ]);
    expect(causes[0].why).toBe("1 page missed in 1 round");
    expect(causes[0].remedy).toMatch(/device\.prefetch/);
    expect(causesIn(round).causes[0].remedy).toMatch(/memory is not the limit/);
  });

  it("does not ask for a prefetch where there was one, and kernels missed nothing", () => {
    const service: Step = ["gpu.service", { device, space: 1, faults: 0, pages: 4, retry: false }, 0.9];
    const [asked] = causesIn([service, upload(100)]).causes;
    expect(asked.what).toBe("bringing what was asked for");
    expect(asked.remedy).not.toMatch(/call device\.prefetch/);
    expect(causesIn([service, missed(100)]).causes[0].remedy).toMatch(/call device\.prefetch/);
  });

  it("says of a few pages how much they were", () => {
    expect(causesIn([upload(100), upload(101)]).causes[0].why).toBe("8 KiB went up, each page once");
  });

  it("tells of pipelines that took longer than what they were made for", () => {
    const compile = (pipeline: string): Step => ["gpu.compile", { device, kernel: "k", pipeline }, 0.8];
    const { causes } = causesIn([compile("checked"), compile("quick"), ...round]);
    expect(causes.map(({ what }) => what)).toEqual(["making pipelines of kernels", "running kernels in rounds"]);
    expect(causes[0].why).toMatch(/^2 pipelines/);
  });

  it("asks for more device memory where pages go up again after evictions, not where each went up once", () => {
    const once = [100, 101].flatMap((page) => [missed(page), ...round, upload(page), evict(page)]);
    const remedies = (steps: readonly Step[]) => causesIn(steps).causes.map(({ remedy }) => remedy);
    expect(remedies(once).join()).not.toMatch(/more memory/);
    const again = remedies([...once, ...once, ...once]);
    expect(again).toHaveLength(2);
    expect(again.every((remedy) => /more memory/.test(remedy))).toBe(true);
  });

  it("names pages that kernels write and the CPU fetches by turns, although they are sent up only once", () => {
    const turn: readonly Step[] = [
      ["mm.migrate", { ...range(100, 2), pages: 2, to: "device", cause: "kernel write" }],
      ["gpu.readback", { device, ...range(100, 2), pages: 2, bytes: 8192 }, 0.5],
      ["mm.migrate", { ...range(100, 2), pages: 2, to: "host", cause: "cpu fault" }],
    ];
    const { causes, thrashing } = causesIn([upload(100), upload(101), ...turn, ...turn, ...turn]);
    expect(causes[0].what).toBe("pages to and fro between kernels and the CPU");
    expect(causes[0].why).toMatch(/^2 pages .* up to 3 times$/);
    expect(thrashing.map(({ slot, up, written, down }) => [slot, up, written, down])).toEqual([
      [0, 1, 3, 3],
      [1, 1, 3, 3],
    ]);
    expect(causesIn([upload(100), upload(101), ...turn]).causes[0].what).toBe("bringing pages home");
  });
});
