/** The timeline: a lane a kind of event, brush to zoom. */
import { useEffect, useRef } from "preact/hooks";
import type { EventStore } from "../../src/inspect/index.ts";
import { Surface } from "./canvas.ts";
import { firstFrom, type Lane, type Lanes } from "./lanes.ts";
import { markText } from "./text.ts";
import { theme } from "./theme.ts";

const LANE = 22;
const AXIS = 20;
/** Where names of lanes stand on a wide screen, and the curves' scale below; a narrow one has them on the lanes. */
export const GUTTER = 150;
const NARROW = 700;
/** A press that moves less than this is a click. */
const CLICK = 4;

export function gutterOf(width: number): number {
  return width < NARROW ? 0 : GUTTER;
}

/** A stretch of time, in microseconds. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

export interface TimelineProps {
  readonly store: EventStore;
  readonly lanes: Lanes;
  readonly version: number;
  readonly view: Span;
  readonly whole: Span;
  readonly cursor: number;
  onView(view: Span): void;
  onCursor(time: number, pinned: boolean): void;
  onHover(row: number | undefined, x: number, y: number): void;
}

export function Timeline(props: TimelineProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const surface = useRef<Surface>(undefined);
  const latest = useRef(props);
  const brush = useRef<{ from: number; to: number } | undefined>(undefined);
  latest.current = props;
  const lanes = props.lanes.all();

  useEffect(() => {
    if (canvas.current === null) {
      return;
    }
    const made = new Surface(canvas.current, (context, width) => draw(context, width, latest.current, brush.current));
    surface.current = made;
    return () => made.end();
  }, []);
  useEffect(() => surface.current?.redraw());

  const timeAt = (x: number) => {
    const { view } = latest.current;
    const width = canvas.current?.clientWidth ?? 1;
    const gutter = gutterOf(width);
    return view.from + ((view.to - view.from) * Math.max(0, x - gutter)) / (width - gutter);
  };
  const zoom = (factor: number, at: number) => {
    const { view, whole } = latest.current;
    const from = Math.max(whole.from, at - (at - view.from) * factor);
    const to = Math.min(whole.to, at + (view.to - at) * factor);
    if (to - from > 0.5) {
      latest.current.onView({ from, to });
    }
  };
  const pan = (share: number) => {
    const { view, whole } = latest.current;
    const width = view.to - view.from;
    const from = Math.max(whole.from, Math.min(whole.to - width, view.from + width * share));
    latest.current.onView({ from, to: from + width });
  };
  const onKey = (event: KeyboardEvent) => {
    const { view, whole, cursor } = latest.current;
    const step = (view.to - view.from) / 100;
    const actions: Record<string, () => void> = {
      ArrowLeft: () => (event.shiftKey ? pan(-0.2) : latest.current.onCursor(cursor - step, true)),
      ArrowRight: () => (event.shiftKey ? pan(0.2) : latest.current.onCursor(cursor + step, true)),
      Home: () => latest.current.onCursor(whole.from, true),
      End: () => latest.current.onCursor(whole.to, true),
      "+": () => zoom(0.5, cursor),
      "=": () => zoom(0.5, cursor),
      "-": () => zoom(2, cursor),
      "0": () => latest.current.onView(whole),
      Escape: () => latest.current.onView(whole),
    };
    const action = actions[event.key];
    if (action !== undefined) {
      event.preventDefault();
      action();
    }
  };
  return (
    <canvas
      ref={canvas}
      class="timeline"
      data-testid="timeline"
      style={{ height: `${AXIS + Math.max(1, lanes.length) * LANE}px` }}
      tabIndex={0}
      aria-label="Timeline. Arrow keys move the cursor, plus and minus zoom, shift and arrows move the view, 0 shows all."
      onKeyDown={onKey}
      onWheel={(event) => {
        event.preventDefault();
        if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
          pan(Math.sign(event.deltaX || event.deltaY) * 0.1);
        } else {
          zoom(event.deltaY > 0 ? 1.25 : 0.8, timeAt(event.offsetX));
        }
      }}
      onPointerDown={(event) => {
        brush.current = { from: event.offsetX, to: event.offsetX };
        event.currentTarget.setPointerCapture(event.pointerId);
      }}
      onPointerMove={(event) => {
        if (brush.current !== undefined) {
          brush.current.to = event.offsetX;
          surface.current?.redraw();
          return;
        }
        const time = timeAt(event.offsetX);
        latest.current.onCursor(time, false);
        const lane = latest.current.lanes.all()[Math.floor((event.offsetY - AXIS) / LANE)];
        const slack = timeAt(GUTTER + 3) - timeAt(GUTTER);
        const row =
          event.offsetY < AXIS || lane === undefined ? undefined : rowNear(lane, latest.current.store, time, slack);
        latest.current.onHover(row, event.clientX, event.clientY);
      }}
      onPointerUp={(event) => {
        const { from, to } = brush.current ?? { from: 0, to: 0 };
        brush.current = undefined;
        if (Math.abs(to - from) < CLICK) {
          latest.current.onCursor(timeAt(event.offsetX), true);
        } else {
          latest.current.onView({ from: timeAt(Math.min(from, to)), to: timeAt(Math.max(from, to)) });
        }
      }}
      onPointerLeave={() => latest.current.onHover(undefined, 0, 0)}
      onDblClick={() => latest.current.onView(latest.current.whole)}
    />
  );
}

/** The event of a lane at a time, or one that is at most `slack` away. The shortest wins: it is drawn on top. */
function rowNear(lane: Lane, { columns: c }: EventStore, time: number, slack: number): number | undefined {
  let best: number | undefined;
  for (let i = firstFrom(lane, c.time, time - lane.longest - slack); i < lane.count; i++) {
    const row = lane.rows[i];
    if (c.time[row] > time + slack) {
      break;
    }
    if (c.time[row] + c.duration[row] >= time - slack && (best === undefined || c.duration[row] <= c.duration[best])) {
      best = row;
    }
  }
  return best;
}

function draw(
  context: CanvasRenderingContext2D,
  fullWidth: number,
  { store, lanes, view, cursor }: TimelineProps,
  brush: { readonly from: number; readonly to: number } | undefined,
): void {
  const colours = theme();
  const { columns: c } = store;
  const gutter = gutterOf(fullWidth);
  const width = fullWidth - gutter;
  context.save();
  context.translate(gutter, 0);
  const scale = width / (view.to - view.from);
  context.font = "11px system-ui, sans-serif";
  drawAxis(context, width, view);
  const all = lanes.all();
  for (const [index, lane] of all.entries()) {
    const y = AXIS + index * LANE;
    context.fillStyle = colours.lanes[lane.colour];
    // Events of one pixel are one stroke: what is drawn does not grow with what there is. Where all are short, those that
    // begin in a pixel that is painted are passed over.
    const leap = lane.longest * scale < 1;
    let [from, to] = [-1, -1];
    for (let i = firstFrom(lane, c.time, view.from - lane.longest); i < lane.count; i++) {
      const row = lane.rows[i];
      const start = (c.time[row] - view.from) * scale;
      if (start > width) {
        break;
      }
      const end = Math.min(width, Math.max(start + 1.5, start + c.duration[row] * scale));
      if (end < 0) {
        continue;
      }
      if (start > to + 0.5) {
        if (to > from) {
          context.fillRect(Math.max(0, from), y + 3, to - Math.max(0, from), LANE - 6);
        }
        from = start;
      }
      to = Math.max(to, end);
      if (leap) {
        i = Math.max(i, firstFrom(lane, c.time, view.from + (to - 1) / scale, i) - 1);
      }
    }
    if (to > from) {
      context.fillRect(Math.max(0, from), y + 3, to - Math.max(0, from), LANE - 6);
    }
    if (gutter === 0) {
      label(context, lane.label, 4, y + 15);
    } else {
      context.fillStyle = colours.faint;
      context.fillText(lane.label, -gutter, y + 15, gutter - 8);
    }
  }
  const height = AXIS + all.length * LANE;
  const x = (cursor - view.from) * scale;
  if (x >= 0 && x <= width) {
    context.fillStyle = colours.cursor;
    context.fillRect(x, 0, 1, height);
  }
  if (brush !== undefined) {
    context.fillStyle = colours.brush;
    const from = Math.max(0, Math.min(brush.from, brush.to) - gutter);
    context.fillRect(from, 0, Math.max(0, Math.max(brush.from, brush.to) - gutter - from), height);
  }
  context.restore();
}

function label(context: CanvasRenderingContext2D, text: string, x: number, y: number): void {
  const { width } = context.measureText(text);
  context.fillStyle = getComputedStyle(document.body).backgroundColor;
  context.globalAlpha = 0.8;
  context.fillRect(x - 2, y - 11, width + 4, 14);
  context.globalAlpha = 1;
  context.fillStyle = theme().text;
  context.fillText(text, x, y);
}

function drawAxis(context: CanvasRenderingContext2D, width: number, view: Span): void {
  const colours = theme();
  const wanted = (view.to - view.from) / Math.max(1, width / 110);
  const power = 10 ** Math.floor(Math.log10(Math.max(1e-3, wanted)));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= wanted) ?? wanted;
  for (let t = Math.ceil(view.from / step) * step; t < view.to; t += step) {
    const x = ((t - view.from) / (view.to - view.from)) * width;
    context.fillStyle = colours.line;
    context.fillRect(x, 0, 1, 10_000);
    context.fillStyle = colours.faint;
    const text = markText(t, step, view.to);
    if (x + 3 + context.measureText(text).width <= width) {
      context.fillText(text, x + 3, 12);
    }
  }
}
