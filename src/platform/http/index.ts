export { type OpenUrlOptions, openUrlObject, statUrl } from "./open-url.ts";
