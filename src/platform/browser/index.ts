export { type BrowserAdapter, openBrowserAdapter, queueNeedsNudging, reportOn } from "./gpu.ts";
export { type BrowserFile, type OpenFileOptions, openBrowserFile } from "./open-file.ts";
