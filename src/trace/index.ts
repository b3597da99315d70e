export { ChromeTraceWriter } from "./chrome.ts";
export { type MeterLike, sendMetrics } from "./metrics.ts";
