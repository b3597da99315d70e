/** In the place of src/platform/node/dawn.ts: the browser's adapter, in the same shape. */
import { openBrowserAdapter, queueNeedsNudging } from "../../src/platform/browser/index.ts";

export async function openDawn() {
  const { gpu: adapter, report } = await openBrowserAdapter();
  return { adapter, report, waiting: queueNeedsNudging() ? ("nudge" as const) : undefined, close: () => undefined };
}
