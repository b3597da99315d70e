/** The tables below the map, and the answer to "why was this slow". */
import { useState } from "preact/hooks";
import type { Analysis, HotPage, SpaceModel, Sum } from "../../src/inspect/index.ts";
import { bytesText, countText, pageText } from "./text.ts";

/** What a cell says, and the number that it is sorted by: a first column has none. */
type Cell = readonly [text: string, value?: number];

interface TableProps {
  readonly title: string;
  readonly head: readonly string[];
  /** The largest first, by what the table is about. */
  readonly rows: readonly (readonly Cell[])[];
  readonly empty: string;
  readonly onRow?: (index: number) => void;
}

interface Order {
  readonly column: number;
  readonly up: boolean;
}

function compare([text, value]: Cell, [otherText, otherValue]: Cell): number {
  return value === undefined || otherValue === undefined ? text.localeCompare(otherText) : value - otherValue;
}

function Table({ title, head, rows, empty, onRow }: TableProps) {
  const [order, setOrder] = useState<Order | undefined>(undefined);
  const sorted = rows.map((cells, index) => ({ cells, index }));
  if (order !== undefined) {
    const { column, up } = order;
    sorted.sort((a, b) => compare(a.cells[column], b.cells[column]) * (up ? 1 : -1));
  }
  // Names begin with the first, numbers with the largest.
  const sortBy = (column: number) =>
    setOrder({ column, up: order?.column === column ? !order.up : rows[0]?.[column][1] === undefined });
  const direction = (column: number) => (order?.column === column ? (order.up ? "ascending" : "descending") : "none");
  return (
    <section class="card">
      <h2>{title}</h2>
      {rows.length === 0 ? (
        <p class="faint">{empty}</p>
      ) : (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                {head.map((label, column) => (
                  <th key={label} aria-sort={direction(column)}>
                    <button
                      type="button"
                      class="sort"
                      title={`${helpOf(label)}Sort by ${label}`}
                      onClick={() => sortBy(column)}
                    >
                      {label}
                    </button>
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {sorted.map(({ cells, index }) => (
                <tr key={cells[0][0]}>
                  {cells.map(([text], column) => (
                    <td key={head[column]}>
                      {column === 0 && onRow !== undefined ? (
                        <button type="button" class="link" onClick={() => onRow(index)}>
                          {text}
                        </button>
                      ) : (
                        text
                      )}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

const PAGE_HEAD = ["page", "events", "sent", "written", "left"];
/** What is counted below a label, where that does not say it. */
const MEANING: Readonly<Record<string, string>> = {
  events: "Events that name the page",
  sent: "Times that its bytes went to a device",
  written: "Times that a kernel took it to write it",
  left: "Times that it came back from a device, or was dropped there",
};
/** What a column's label says when the pointer rests on it. */
const helpOf = (label: string) => (MEANING[label] === undefined ? "" : `${MEANING[label]}. `);

const ms = (n: number) => `${n.toFixed(n < 10 ? 2 : 0)} ms`;
const counted = (n: number): Cell => [countText(n), n];
const timed = (n: number): Cell => [ms(n), n];

export function Why({ analysis }: { readonly analysis: Analysis | undefined }) {
  return (
    <section class="card why" data-testid="why">
      <h2>Why was this slow?</h2>
      {analysis === undefined || analysis.causes.length === 0 ? (
        <p class="faint">Nothing has taken any time yet.</p>
      ) : (
        <ol>
          {analysis.causes.map(({ what, ms: took, why, remedy }, i) => (
            <li key={what}>
              <strong>
                {what}: {ms(took)}
              </strong>
              <span class="faint"> of {ms(analysis.wallMs)}</span>
              <div>{why}.</div>
              <div class="remedy">What to do: {analysis.causes[i - 1]?.remedy === remedy ? "the same" : remedy}.</div>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}

export function Tables({
  analysis,
  model,
  onPage,
}: {
  readonly analysis: Analysis;
  readonly model: SpaceModel;
  readonly onPage: (slot: number) => void;
}) {
  const where = ({ slot }: HotPage) => {
    const region = model.regionAt(slot);
    return region === undefined ? String(slot) : `${region.name} ${pageText(region.page + (slot - region.slot))}`;
  };
  const pages = (list: readonly HotPage[]) =>
    list.map((page) => [[where(page)] as const, ...[page.events, page.up, page.written, page.down].map(counted)]);
  const sums = (list: readonly Sum[]) =>
    list.map((row) => [[row.label] as const, counted(row.count), timed(row.ms), timed(row.most)]);
  return (
    <div class="cards" data-testid="tables">
      <Table
        title="Hottest pages"
        head={PAGE_HEAD}
        rows={pages(analysis.hottest)}
        empty="No page was touched in this stretch of time."
        onRow={(index) => onPage(analysis.hottest[index].slot)}
      />
      <Table
        title="Thrashing pages"
        head={PAGE_HEAD}
        rows={pages(analysis.thrashing)}
        empty="No page went to and fro."
        onRow={(index) => onPage(analysis.thrashing[index].slot)}
      />
      <Table
        title="Bytes by cause"
        head={["cause", "times", "bytes"]}
        rows={analysis.bytes.map((row) => [[row.label], counted(row.count), [bytesText(row.bytes), row.bytes]])}
        empty="Nothing was moved."
      />
      <Table
        title="Notifiers and mirrors"
        head={["what", "times", "time", "longest"]}
        rows={sums(analysis.notifiers)}
        empty="Nobody watches this memory."
      />
      <Table
        title="Lock waits"
        head={["lock", "times", "time", "longest"]}
        rows={sums(analysis.locks)}
        empty="Nobody waited for a lock."
      />
    </div>
  );
}
