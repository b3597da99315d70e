export { ChromeTraceWriter } from "./chrome.ts";
export { type EventChunk, EventPacker, EventUnpacker, ROW_STRIDE } from "./event-chunk.ts";
export { type EventRun, readRuns } from "./event-runs.ts";
export { type MeterLike, sendMetrics } from "./metrics.ts";
