export { type Analysis, analyse, analysing, type HotPage, type Sum } from "./analysis.ts";
export type { Cause } from "./causes.ts";
export { EventStore, FIRST_FLAG, kindOf, type MemorySample, SECOND_FLAG } from "./event-store.ts";
export { TraceLoader } from "./load-trace.ts";
export { PAGE_STATES, type PageState, type Region, rowAt, SpaceModel } from "./space-model.ts";
