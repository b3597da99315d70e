/** The address space as a map: a cell a page, or as many pages as fit. */
import { useEffect, useRef } from "preact/hooks";
import { PAGE_STATES, type SpaceModel } from "../../src/inspect/index.ts";
import { Surface } from "./canvas.ts";
import { countText } from "./text.ts";
import { theme } from "./theme.ts";

const TITLE = 18;
const SMALLEST = 7;
const LARGEST = 22;
const HEIGHT = 260;

/** Pages that are shown, counted over all regions. */
export interface Slots {
  readonly from: number;
  readonly to: number;
}

export interface SpaceMapProps {
  readonly model: SpaceModel;
  /** Rows that have happened by the cursor. */
  readonly row: number;
  readonly version: number;
  readonly view: Slots;
  readonly selected: number | undefined;
  onView(view: Slots): void;
  onHover(slot: number | undefined, x: number, y: number): void;
  onSelect(slot: number): void;
}

interface Band {
  readonly region: SpaceModel["regions"][number];
  /** Shown pages of the region, as slots. */
  readonly from: number;
  readonly to: number;
  readonly y: number;
}

interface Layout {
  readonly bands: readonly Band[];
  readonly cell: number;
  readonly columns: number;
  readonly pagesPerCell: number;
  readonly height: number;
}

/** The smallest number of pages a cell with which everything fits. */
function layOut(model: SpaceModel, view: Slots, width: number): Layout {
  const shown = model.regions
    .map((region) => ({
      region,
      from: Math.max(view.from, region.slot),
      to: Math.min(view.to, region.slot + region.pages),
    }))
    .filter(({ from, to }) => from < to);
  const room = Math.max(HEIGHT, shown.length * (TITLE + SMALLEST + 4));
  const withCells = (cell: number, pagesPerCell: number): Layout => {
    const columns = Math.max(1, Math.floor(width / cell));
    let y = 0;
    const bands = shown.map((part) => {
      const band = { ...part, y };
      y += TITLE + Math.ceil(Math.ceil((part.to - part.from) / pagesPerCell) / columns) * cell + 4;
      return band;
    });
    return { bands, cell, columns, pagesPerCell, height: y };
  };
  for (let cell = LARGEST; cell > SMALLEST; cell -= 3) {
    const layout = withCells(cell, 1);
    if (layout.height <= room) {
      return layout;
    }
  }
  for (let pagesPerCell = 1; ; pagesPerCell *= 2) {
    const layout = withCells(SMALLEST, pagesPerCell);
    if (layout.height <= room || pagesPerCell > model.slots) {
      return layout;
    }
  }
}

function slotAt({ bands, cell, columns, pagesPerCell }: Layout, x: number, y: number): number | undefined {
  const band = bands.findLast((candidate) => candidate.y + TITLE <= y);
  if (band === undefined || x < 0 || x >= columns * cell) {
    return undefined;
  }
  const index = Math.floor((y - band.y - TITLE) / cell) * columns + Math.floor(x / cell);
  const slot = band.from + index * pagesPerCell;
  return slot < band.to ? slot : undefined;
}

export function SpaceMap(props: SpaceMapProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const surface = useRef<Surface>(undefined);
  const latest = useRef(props);
  latest.current = props;
  const layout = () => layOut(latest.current.model, latest.current.view, canvas.current?.clientWidth ?? 300);

  useEffect(() => {
    if (canvas.current === null) {
      return;
    }
    const made = new Surface(canvas.current, (context, width) => draw(context, width, latest.current));
    surface.current = made;
    return () => made.end();
  }, []);
  useEffect(() => surface.current?.redraw());

  const zoom = (factor: number, at: number) => {
    const { view, model } = latest.current;
    const from = Math.max(0, Math.floor(at - (at - view.from) * factor));
    const to = Math.min(model.slots, Math.ceil(at + (view.to - at) * factor));
    if (to - from >= Math.min(4, model.slots)) {
      latest.current.onView({ from, to });
    }
  };
  const onKey = (event: KeyboardEvent) => {
    const { view, model, selected } = latest.current;
    const { columns, pagesPerCell } = layout();
    const at = selected ?? view.from;
    const select = (slot: number) => latest.current.onSelect(Math.max(view.from, Math.min(view.to - 1, slot)));
    const actions: Record<string, () => void> = {
      ArrowLeft: () => select(at - pagesPerCell),
      ArrowRight: () => select(at + pagesPerCell),
      ArrowUp: () => select(at - columns * pagesPerCell),
      ArrowDown: () => select(at + columns * pagesPerCell),
      "+": () => zoom(0.5, at),
      "=": () => zoom(0.5, at),
      "-": () => zoom(2, at),
      "0": () => latest.current.onView({ from: 0, to: model.slots }),
      Escape: () => latest.current.onView({ from: 0, to: model.slots }),
    };
    const action = actions[event.key];
    if (action !== undefined) {
      event.preventDefault();
      action();
    }
  };
  const { height } = layout();
  return (
    <canvas
      ref={canvas}
      class="map"
      data-testid="map"
      style={{ height: `${Math.max(60, Math.min(height, 640))}px` }}
      tabIndex={0}
      aria-label="Map of the address space. Arrow keys choose a page, plus and minus zoom, 0 shows all."
      onKeyDown={onKey}
      onWheel={(event) => {
        event.preventDefault();
        const slot = slotAt(layout(), event.offsetX, event.offsetY);
        const { view } = latest.current;
        zoom(event.deltaY > 0 ? 1.4 : 0.7, slot ?? (view.from + view.to) / 2);
      }}
      onPointerMove={(event) => {
        latest.current.onHover(slotAt(layout(), event.offsetX, event.offsetY), event.clientX, event.clientY);
      }}
      onPointerLeave={() => latest.current.onHover(undefined, 0, 0)}
      onClick={(event) => {
        const slot = slotAt(layout(), event.offsetX, event.offsetY);
        if (slot !== undefined) {
          latest.current.onSelect(slot);
        }
      }}
      onDblClick={() => latest.current.onView({ from: 0, to: latest.current.model.slots })}
    />
  );
}

function draw(context: CanvasRenderingContext2D, width: number, { model, row, view, selected }: SpaceMapProps): void {
  const colours = theme();
  const palette = PAGE_STATES.map((state) => colours.states[state]);
  model.seek(row);
  const layout = layOut(model, view, width);
  const { cell, columns, pagesPerCell } = layout;
  const counts = new Uint32Array(PAGE_STATES.length);
  context.font = "12px system-ui, sans-serif";
  for (const { region, from, to, y } of layout.bands) {
    context.fillStyle = colours.text;
    const space = model.regions.some((other) => other.space !== region.space) ? ` (space ${region.space})` : "";
    context.fillText(
      `${region.name}${space} · ${countText(region.pages)} ${region.pages === 1 ? "page" : "pages"}`,
      0,
      y + 13,
      width,
    );
    for (let slot = from, index = 0; slot < to; slot += pagesPerCell, index++) {
      context.fillStyle = palette[cellState(model.states, slot, Math.min(to, slot + pagesPerCell), counts)];
      const left = (index % columns) * cell;
      const top = y + TITLE + Math.floor(index / columns) * cell;
      context.fillRect(left, top, cell - 1, cell - 1);
      if (selected !== undefined && selected >= slot && selected < slot + pagesPerCell) {
        context.strokeStyle = colours.cursor;
        context.lineWidth = 2;
        context.strokeRect(left, top, cell - 1, cell - 1);
      }
    }
  }
}

const [MIGRATING, POISONED] = [PAGE_STATES.indexOf("migrating"), PAGE_STATES.indexOf("poisoned")];

/** What most pages of a cell are; what is rare and bad is shown all the same. */
function cellState(states: Uint8Array, from: number, to: number, counts: Uint32Array): number {
  if (to - from === 1) {
    return states[from];
  }
  counts.fill(0);
  for (let slot = from; slot < to; slot++) {
    counts[states[slot]]++;
  }
  if (counts[POISONED] > 0 || counts[MIGRATING] > 0) {
    return counts[POISONED] > 0 ? POISONED : MIGRATING;
  }
  let best = 0;
  for (let state = 1; state < counts.length; state++) {
    best = counts[state] > counts[best] ? state : best;
  }
  return best;
}
