/** One API on both MMUs: a service that owns the address space and the GPU, and clients with plain arrays. */
export { MemoryErrorEvent, SharedMirror } from "./client.ts";
export { openShared } from "./open.ts";
export type { MmuChoice, OpenOptions, ServiceOptions, SharedOptions } from "./options.ts";
export { PlainArrays, SharedLease } from "./plain-arrays.ts";
export type { ClientMmapOptions, ClientUrlOptions, ServiceCounts } from "./protocol.ts";
export { SharedDevice, type SharedDispatchOptions, type SharedKernel, type SharedTarget } from "./shared-device.ts";
export { SharedMapping, type SharedRange } from "./shared-mapping.ts";
export { type SharedFile, SharedMemory, type SharedMmapOptions } from "./shared-memory.ts";
