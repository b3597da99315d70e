/** One API on both MMUs: a service that owns the address space and the GPU, and clients with plain arrays. */
export {
  type MmuChoice,
  SharedDevice,
  type SharedFile,
  type SharedKernel,
  SharedLease,
  SharedMapping,
  SharedMemory,
  SharedMirror,
  type SharedMmapOptions,
  type SharedRange,
} from "./client.ts";
export { openShared, type SharedOptions } from "./open.ts";
