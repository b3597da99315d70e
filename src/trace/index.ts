export { ChromeTraceWriter } from "./chrome.ts";
export { type EventChunk, EventPacker } from "./event-chunk.ts";
export { type MeterLike, sendMetrics } from "./metrics.ts";
