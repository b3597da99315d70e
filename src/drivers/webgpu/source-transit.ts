/** Isolated pages whose bytes come from pages that somebody else moves. */
import { type MemoryObject, PageFlag } from "../../mm/index.ts";
import { PageState } from "./extent.ts";
import { type Attempt, BUSY_MEMORY, type Retry } from "./gather.ts";

/**
 * A page in transit that the bytes of the isolated pages come from: a private copy of a page that another dispatch has
 * isolated. Waiting for it here could be waiting for each other.
 */
export function sourceInTransit({ arriving }: Attempt): Retry | undefined {
  for (const { migration, placed, from, to } of arriving) {
    const { object, page } = migration;
    if (object.source === undefined) {
      continue;
    }
    for (let p = placed.extent.firstWithout(from, to, PageState.Valid); p < to; p++) {
      const below = busyBelow(object, page + (p - from));
      if (below !== undefined) {
        return {
          wait: (options) => below.object.wq.wait(() => !(below.object.flagsOf(below.page) & PageFlag.Busy), options),
          why: BUSY_MEMORY,
        };
      }
    }
  }
  return undefined;
}

/** Flags of a page that has bytes of its own, or has lost them. */
const OWN_BYTES = PageFlag.Own | PageFlag.Uptodate | PageFlag.Device | PageFlag.Poisoned;

/** The page below a copy's page that its bytes come from, while that is in transit. */
export function busyBelow(object: MemoryObject, page: number): { object: MemoryObject; page: number } | undefined {
  let at = { object, page };
  while (
    !(at.object.flagsOf(at.page) & OWN_BYTES) &&
    at.object.source !== undefined &&
    at.page < at.object.sourcePages
  ) {
    at = { object: at.object.source, page: at.page + at.object.sourcePage };
    if (at.object.flagsOf(at.page) & PageFlag.Busy) {
      return at;
    }
  }
  return undefined;
}
