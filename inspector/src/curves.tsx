/** Curves of a device's memory and of what went over the bus. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { PAGE_SIZE } from "../../src/base/index.ts";
import type { EventStore, MemorySample } from "../../src/inspect/index.ts";
import { bytesText } from "./text.ts";
import { theme } from "./theme.ts";
import type { Span } from "./timeline.tsx";

/** More points than a wide screen has pixels are thinned out. */
const MOST_POINTS = 4000;

/** Steps of the axis of bytes. */
const POWERS = Array.from({ length: 48 }, (_, i) => 2 ** i);

const CURVES = [
  { label: "resident", of: (sample: MemorySample) => sample.resident * PAGE_SIZE },
  { label: "only copy", of: (sample: MemorySample) => sample.dirty * PAGE_SIZE },
  { label: "sent to device", of: (sample: MemorySample) => sample.toDevice },
  { label: "brought home", of: (sample: MemorySample) => sample.toHost },
] as const;

function dataOf(samples: readonly MemorySample[], device: number): uPlot.AlignedData {
  const own = samples.filter((sample) => sample.device === device);
  const step = Math.max(1, Math.ceil(own.length / MOST_POINTS));
  const points = own.filter((_, i) => i % step === 0 || i === own.length - 1);
  return [points.map(({ time }) => time / 1e6), ...CURVES.map(({ of }) => points.map(of))];
}

export function Curves({
  store,
  version,
  view,
}: {
  readonly store: EventStore;
  readonly version: number;
  readonly view: Span;
}) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  const device = store.samples[0]?.device;
  const dark = theme();
  useEffect(() => {
    const parent = box.current;
    if (parent === null || device === undefined) {
      return;
    }
    const axis = { stroke: dark.faint, grid: { stroke: dark.line, width: 1 }, ticks: { stroke: dark.line, width: 1 } };
    const strokes = [dark.states.copy, dark.states.device, dark.states.written, dark.states.cpu];
    const made = new uPlot(
      {
        width: parent.clientWidth,
        height: 180,
        cursor: { drag: { x: false, y: false } },
        scales: { x: { time: false } },
        axes: [
          { ...axis, values: (_, ticks) => ticks.map((t) => `${+t.toFixed(4)} s`) },
          { ...axis, size: 82, incrs: POWERS, values: (_, ticks) => ticks.map(bytesText) },
        ],
        series: [
          { label: "time", value: (_, t) => (t === null ? "" : `${t.toFixed(4)} s`) },
          ...CURVES.map(({ label }, i) => ({
            label,
            stroke: strokes[i],
            width: 1.5,
            points: { show: false },
            value: (_: uPlot, bytes: number | null) => (bytes === null ? "" : bytesText(bytes)),
          })),
        ],
      },
      dataOf(store.samples, device),
      parent,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: parent.clientWidth, height: 180 }));
    observer.observe(parent);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = undefined;
    };
  }, [device, dark]);
  useEffect(() => {
    if (device !== undefined) {
      plot.current?.setData(dataOf(store.samples, device), false);
      plot.current?.setScale("x", { min: view.from / 1e6, max: view.to / 1e6 });
    }
  }, [version, view, device, dark]);
  return device === undefined ? (
    <p class="faint">No device has reported its memory yet.</p>
  ) : (
    <div ref={box} data-testid="curves" />
  );
}
