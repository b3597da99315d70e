/** `pagemirror maps`: the address space of a traced run as text, for people who know /proc. */
import { addrOf } from "../base/index.ts";
import { type EventStore, kindOf, PAGE_STATES, type PageState, SpaceModel } from "../inspect/index.ts";
import { mapsAddresses, smapsFigure } from "../mm/index.ts";
import { loadTrace } from "./inspect.ts";

const LABELS: Readonly<Record<PageState, string>> = {
  unmapped: "Unmapped",
  absent: "Absent",
  cpu: "Read",
  written: "Written",
  copy: "Copied",
  device: "Device",
  migrating: "Migrating",
  poisoned: "Poisoned",
};

/** Prints where the pages of a trace were. @throws KernelError as {@link loadTrace} */
export async function mapsCommand(path: string): Promise<void> {
  process.stdout.write(mapsText(await loadTrace(path, "maps")));
}

/** The mappings after the last dispatch, each with its pages by where they were. At the end of a trace all may be unmapped. */
function mapsText(store: EventStore): string {
  const model = new SpaceModel(store);
  model.update();
  model.seek(afterLastDispatch(store));
  const spaces = new Set(model.regions.map(({ space }) => space)).size;
  return [...model.regions]
    .sort((a, b) => a.space - b.space || a.page - b.page)
    .map(({ space, page, pages, name, slot }) => {
      const counts = new Uint32Array(PAGE_STATES.length);
      for (const state of model.states.subarray(slot, slot + pages)) {
        counts[state]++;
      }
      const figures = PAGE_STATES.flatMap((state, i) => (counts[i] > 0 ? smapsFigure(LABELS[state], counts[i]) : []));
      const head = `${mapsAddresses(addrOf(page), addrOf(page + pages))} ${name}${spaces > 1 ? ` (space ${space})` : ""}`;
      return counts[0] === pages ? "" : `${head}\n${smapsFigure("Size", pages)}${figures.join("")}`;
    })
    .join("");
}

/** A row number for {@link SpaceModel.seek}; the end of the trace when nothing was dispatched. */
function afterLastDispatch({ columns, count }: EventStore): number {
  const last = columns.kind.lastIndexOf(kindOf("gpu.dispatch"), count - 1);
  return last === -1 ? count : last + 1;
}
