export * from "./addr.ts";
export * from "./bug.ts";
export * from "./errno.ts";
export * from "./ledger.ts";
export * from "./maybe-promise.ts";
export * from "./trace.ts";
export * from "./trace-points.ts";
