export { type Analysis, analyse, type Cause, type HotPage, type Sum } from "./analysis.ts";
export { EventStore, FIRST_FLAG, kindOf, type MemorySample, SECOND_FLAG } from "./event-store.ts";
export { TraceLoader } from "./load-trace.ts";
export { PAGE_STATES, type PageState, type Region, rowAt, SpaceModel } from "./space-model.ts";
