export { type IntervalNode, IntervalTree } from "./interval-tree.ts";
export { type RangeEntry, RangeMap } from "./range-map.ts";
