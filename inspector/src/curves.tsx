/** Curves of a device's memory and of what went over the bus. */
import { useEffect, useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { PAGE_SIZE } from "../../src/base/index.ts";
import type { EventStore, MemorySample } from "../../src/inspect/index.ts";
import { bytesText, markText } from "./text.ts";
import { theme } from "./theme.ts";
import { gutterOf, type Span } from "./timeline.tsx";

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

interface CurvesProps {
  readonly store: EventStore;
  readonly version: number;
  readonly view: Span;
  /** The time whose values are told while no pointer is on the curves. */
  readonly cursor: number;
}

/** A plot a device. */
export function Curves(props: CurvesProps) {
  const { store, version } = props;
  const devices = useMemo(() => [...new Set(store.samples.map(({ device }) => device))], [version]);
  return devices.length === 0 ? (
    <p class="faint">No device has reported its memory yet.</p>
  ) : (
    <div data-testid="curves">
      {devices.map((device) => (
        <section key={device} aria-label={`Memory of ${store.text(device)}`}>
          {devices.length === 1 ? null : <h3>{store.text(device)}</h3>}
          <DeviceCurves {...props} device={device} />
        </section>
      ))}
    </div>
  );
}

function DeviceCurves({ store, version, view, cursor, device }: CurvesProps & { readonly device: number }) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  const dark = theme();
  useEffect(() => {
    const parent = box.current;
    if (parent === null) {
      return;
    }
    const axis = { stroke: dark.faint, grid: { stroke: dark.line, width: 1 }, ticks: { stroke: dark.line, width: 1 } };
    const strokes = [dark.states.copy, dark.states.device, dark.states.written, dark.states.cpu];
    const made = new uPlot(
      {
        width: parent.clientWidth,
        height: 180,
        // In line with the timeline above.
        padding: [8, 0, 0, 0],
        cursor: { drag: { x: false, y: false } },
        scales: { x: { time: false } },
        axes: [
          {
            ...axis,
            values: (_, ticks) => {
              const [last, step] = [ticks.at(-1) ?? 0, (ticks[1] ?? 1) - (ticks[0] ?? 0)];
              return ticks.map((t) => markText(t * 1e6, step * 1e6, last * 1e6));
            },
          },
          {
            ...axis,
            size: Math.max(82, gutterOf(parent.clientWidth)),
            incrs: POWERS,
            values: (_, ticks) => ticks.map(bytesText),
          },
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
    plot.current?.setData(dataOf(store.samples, device), false);
  }, [version, device]);
  useEffect(() => {
    plot.current?.setScale("x", { min: view.from / 1e6, max: view.to / 1e6 });
  }, [version, view, device, dark]);
  useEffect(() => {
    plot.current?.setLegend({ idx: plot.current.valToIdx(cursor / 1e6) });
  });
  return <div ref={box} />;
}
