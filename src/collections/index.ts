export { allOf8, anyOf8 } from "./eight-words.ts";
export { type IntervalNode, IntervalTree } from "./interval-tree.ts";
export { type RangeEntry, RangeMap } from "./range-map.ts";
