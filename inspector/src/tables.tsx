/** The tables below the map, and the answer to "why was this slow". */
import type { Analysis, HotPage, SpaceModel, Sum } from "../../src/inspect/index.ts";
import { bytesText, countText, pageText } from "./text.ts";

interface TableProps {
  readonly title: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  readonly empty: string;
  readonly onRow?: (index: number) => void;
}

function Table({ title, head, rows, empty, onRow }: TableProps) {
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
                {head.map((label) => (
                  <th key={label}>{label}</th>
                ))}
              </tr>
            </thead>
            <tbody>
              {rows.map((row, index) => (
                <tr key={row[0]}>
                  {row.map((text, column) => (
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

/** How often each page went to a device, was written there, and left it. */
const PAGE_HEAD = ["page", "events", "sent", "written", "left"];

const ms = (n: number) => `${n.toFixed(n < 10 ? 2 : 0)} ms`;

export function Why({ analysis }: { readonly analysis: Analysis }) {
  return (
    <section class="card why" data-testid="why">
      <h2>Why was this slow?</h2>
      {analysis.causes.length === 0 ? (
        <p class="faint">Nothing has taken any time yet.</p>
      ) : (
        <ol>
          {analysis.causes.map(({ what, ms: took, why, remedy }) => (
            <li key={what}>
              <strong>
                {what}: {ms(took)}
              </strong>
              <span class="faint"> of {ms(analysis.wallMs)}</span>
              <div>{why}.</div>
              <div class="remedy">What to do: {remedy}.</div>
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
    list.map((page) => [where(page), ...[page.events, page.up, page.written, page.down].map(countText)]);
  const timed = (list: readonly Sum[]) =>
    list.map((row) => [row.label, countText(row.count), ms(row.ms), ms(row.most)]);
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
        rows={analysis.bytes.map((row) => [row.label, countText(row.count), bytesText(row.bytes)])}
        empty="Nothing was moved."
      />
      <Table
        title="Notifiers and mirrors"
        head={["what", "times", "time", "longest"]}
        rows={timed(analysis.notifiers)}
        empty="Nobody watches this memory."
      />
      <Table
        title="Lock waits"
        head={["lock", "times", "time", "longest"]}
        rows={timed(analysis.locks)}
        empty="Nobody waited for a lock."
      />
    </div>
  );
}
