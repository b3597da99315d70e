/** The page: header, map, timeline, curves, tables. */
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { type EventStore, kindOf, PAGE_STATES, rowAt, SpaceModel } from "../../src/inspect/index.ts";
import { Curves } from "./curves.tsx";
import type { EventFeed } from "./feed.ts";
import { Lanes } from "./lanes.ts";
import { type Slots, SpaceMap } from "./space-map.tsx";
import { Tables, Why } from "./tables.tsx";
import { countText, eventText, pageText, timeText } from "./text.ts";
import { isDark, STATE_TEXT, theme } from "./theme.ts";
import { type Span, Timeline } from "./timeline.tsx";
import { useAnalysis } from "./use-analysis.ts";

/** The events of a page that a story tells, and the rows that it looks at to find them. */
const STORY = 6;
const MOST_LOOKED_AT = 300_000;

const DISPATCH = kindOf("gpu.dispatch");

interface Hint {
  readonly x: number;
  readonly y: number;
  readonly lines: readonly string[];
}

/** Pixels between a tooltip and the window's edge. */
const EDGE = 8;

/** What happened to a page before a row, the latest first. */
function storyOf(model: SpaceModel, slot: number, row: number): string[] {
  const region = model.regionAt(slot);
  if (region === undefined) {
    return [];
  }
  const { store } = model;
  const { columns: c } = store;
  const page = region.page + (slot - region.slot);
  model.seek(row);
  const lines = [`${region.name} ${pageText(page)}: ${STATE_TEXT[PAGE_STATES[model.states[slot]]]}`];
  for (let r = row - 1, looked = 0; r >= 0 && looked < MOST_LOOKED_AT && lines.length <= STORY; r--, looked++) {
    if (c.page[r] <= page && page < c.page[r] + c.pages[r] && c.space[r] === region.space) {
      lines.push(`${timeText(c.time[r])}  ${eventText(store, r)}`);
    }
  }
  return lines;
}

/** When the last dispatch ended, in microseconds: afterwards a run closes its devices, and all pages are home. */
function lastDispatchEnd({ columns: c, count }: EventStore): number | undefined {
  const row = c.kind.subarray(0, count).lastIndexOf(DISPATCH);
  return row === -1 ? undefined : c.time[row] + c.duration[row];
}

export interface AppProps {
  /** Makes what brings the events; it calls `onChange` when there are more. */
  connect(onChange: () => void): EventFeed;
  /** As a part of another page, which has a title and a switch of its own. */
  readonly embedded?: boolean;
}

export function App({ connect, embedded = false }: AppProps) {
  const [version, setVersion] = useState(0);
  const [themeVersion, setThemeVersion] = useState(0);
  const parts = useMemo(() => {
    const feed = connect(() => {
      parts.model.update();
      parts.lanes.update();
      setVersion((n) => n + 1);
    });
    return { feed, model: new SpaceModel(feed.store), lanes: new Lanes(feed.store) };
  }, [connect]);
  const { feed, model, lanes } = parts;
  const { store } = feed;
  useEffect(() => feed.start(), [feed]);
  useEffect(() => {
    const media = matchMedia("(prefers-color-scheme: dark)");
    const listener = () => setThemeVersion((n) => n + 1);
    media.addEventListener("change", listener);
    const chosen = new MutationObserver(listener);
    chosen.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    return () => {
      media.removeEventListener("change", listener);
      chosen.disconnect();
    };
  }, []);

  const { begin, end } = store;
  const whole: Span = useMemo(() => ({ from: begin, to: Math.max(begin + 1, end) }), [begin, end]);
  const [zoomed, setZoomed] = useState<Span | undefined>(undefined);
  const view = zoomed ?? whole;
  const [pinned, setPinned] = useState<number | undefined>(undefined);
  const [hovered, setHovered] = useState<number | undefined>(undefined);
  const { live, dropped } = feed.status;
  const rest = useMemo(() => (live ? undefined : lastDispatchEnd(store)), [live, version]);
  const cursor = hovered ?? pinned ?? (zoomed === undefined ? rest : undefined) ?? view.to;
  const row = rowAt(store, cursor);
  const [slots, setSlots] = useState<Slots | undefined>(undefined);
  const mapView = slots ?? { from: 0, to: model.slots };
  const [selected, setSelected] = useState<number | undefined>(undefined);
  const [hint, setHint] = useState<Hint | undefined>(undefined);
  const mapRef = useRef<HTMLDivElement>(null);

  const analysis = useAnalysis(model, zoomed, version);

  const showPage = useCallback(
    (slot: number) => {
      setSelected(slot);
      setSlots({ from: Math.max(0, slot - 256), to: Math.min(model.slots, slot + 256) });
      mapRef.current?.scrollIntoView({ behavior: "smooth", block: "nearest" });
    },
    [model],
  );
  const toggle = () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  };
  const story = selected === undefined ? [] : storyOf(model, selected, row);
  const colours = theme();
  const Root = embedded ? "section" : "main";
  return (
    <Root data-theme-version={themeVersion}>
      <header>
        {embedded ? <h2>Inspector</h2> : <h1>PageMirror</h1>}
        <span class={live ? "pill live" : "pill"} data-testid="status">
          {live ? "live" : "recorded"}
        </span>
        <span class="faint" data-testid="count">
          {countText(store.count)} events · {countText(model.slots)} pages · {timeText(end - begin)}
          {dropped > 0 ? ` · ${countText(dropped)} events did not fit` : ""}
        </span>
        {embedded ? null : (
          <button type="button" onClick={toggle} aria-label="Switch between light and dark">
            {isDark() ? "light" : "dark"}
          </button>
        )}
      </header>
      {feed.failure === undefined ? null : (
        <p class="failure" role="alert">
          {feed.failure}
        </p>
      )}
      <section class="card" ref={mapRef}>
        <div class="bar">
          <h2>Address space</h2>
          <span class="faint" data-testid="cursor">
            at {timeText(cursor)}
          </span>
          {slots === undefined ? null : (
            <button type="button" onClick={() => setSlots(undefined)}>
              show all pages
            </button>
          )}
        </div>
        <SpaceMap
          model={model}
          row={row}
          version={version}
          view={mapView}
          selected={selected}
          onView={(next) => setSlots(next.from === 0 && next.to >= model.slots ? undefined : next)}
          onSelect={setSelected}
          onHover={(slot, x, y) => setHint(slot === undefined ? undefined : { x, y, lines: storyOf(model, slot, row) })}
        />
        <ul class="legend">
          {PAGE_STATES.map((state) => (
            <li key={state}>
              <i style={{ background: colours.states[state] }} />
              {STATE_TEXT[state]}
            </li>
          ))}
        </ul>
        <p class="keys">
          Click or <kbd>←</kbd> <kbd>→</kbd> <kbd>↑</kbd> <kbd>↓</kbd> choose a page; wheel or <kbd>+</kbd> <kbd>−</kbd>{" "}
          zoom; <kbd>0</kbd> shows all.
        </p>
        <div class="story" aria-live="polite" data-testid="story">
          {story.length === 0 ? (
            <span class="faint">Choose a page to read its story.</span>
          ) : (
            story.map((line, i) => <div key={`${i} ${line}`}>{line}</div>)
          )}
        </div>
      </section>
      <section class="card">
        <div class="bar">
          <h2>Timeline</h2>
          <span class="faint" data-testid="view">
            {timeText(view.from)} to {timeText(view.to)}
          </span>
          {zoomed === undefined ? null : (
            <button type="button" onClick={() => setZoomed(undefined)}>
              show all
            </button>
          )}
        </div>
        <Timeline
          store={store}
          lanes={lanes}
          version={version}
          view={view}
          whole={whole}
          cursor={cursor}
          onView={(next) => setZoomed(next.from <= whole.from && next.to >= whole.to ? undefined : next)}
          onCursor={(time, pin) => {
            const at = Math.max(whole.from, Math.min(whole.to, time));
            setHovered(pin ? undefined : at);
            if (pin) {
              setPinned(at);
            }
          }}
          onHover={(event, x, y) => {
            if (x === 0 && y === 0) {
              setHovered(undefined);
            }
            setHint(
              event === undefined
                ? undefined
                : { x, y, lines: [`${timeText(store.columns.time[event])}  ${eventText(store, event)}`] },
            );
          }}
        />
        <p class="keys">
          Drag, wheel or <kbd>+</kbd> <kbd>−</kbd> zoom; click or <kbd>←</kbd> <kbd>→</kbd> move the time at which the
          map is shown, with <kbd>Shift</kbd> the view; <kbd>0</kbd> shows all.
        </p>
        <Curves store={store} version={version} view={view} cursor={cursor} />
      </section>
      <Why analysis={analysis} />
      {analysis === undefined ? null : <Tables analysis={analysis} model={model} onPage={showPage} />}
      {hint === undefined ? null : <Tooltip hint={hint} />}
    </Root>
  );
}

/** Beside the pointer, and moved so far that all of it is in the window. */
function Tooltip({ hint }: { readonly hint: Hint }) {
  const element = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    if (element.current === null) {
      return;
    }
    const { style, offsetWidth, offsetHeight } = element.current;
    const { clientWidth, clientHeight } = document.documentElement;
    const below = hint.y + 14;
    style.left = `${Math.max(EDGE, Math.min(hint.x + 12, clientWidth - offsetWidth - EDGE))}px`;
    style.top = `${below + offsetHeight + EDGE <= clientHeight ? below : Math.max(EDGE, hint.y - offsetHeight - EDGE)}px`;
  });
  return (
    <div class="hint" role="tooltip" ref={element}>
      {hint.lines.map((line, i) => (
        <div key={`${i} ${line}`}>{line}</div>
      ))}
    </div>
  );
}
