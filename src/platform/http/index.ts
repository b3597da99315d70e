export { type OpenUrlOptions, openUrlObject } from "./open-url.ts";
