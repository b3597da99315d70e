export { AddressSpace } from "./address-space.ts";
export { type AdoptOptions, adopt, adoptableBytes, disown } from "./adopt.ts";
export { addrOfSvm, SVM_APERTURE_BASE, SVM_APERTURE_BYTES, svmAddressOf } from "./aperture.ts";
export {
  type CpuFault,
  type FaultAround,
  findShowable,
  type PageSpan,
  readAheadFromDevice,
  serveCpuFault,
  takeCpuFailure,
} from "./cpu-fault.ts";
export {
  forEachReadOnly,
  hasReadOnly,
  holdFromCpu,
  syncCpuWrites,
  syncReadOnly,
  syncSpace,
  unmapFromCpu,
} from "./cpu-trap.ts";
export { type ExclusivePage, makeDeviceExclusive } from "./device-exclusive.ts";
export { type DeviceMemoryKind, DevicePagemap, type ObjectPage } from "./device-pagemap.ts";
export { type FaultFlags, type FaultOutcome, faultRange, handleMmFault } from "./fault.ts";
export { type ByteRange, Lease, type LeaseOptions, resolveByteRange } from "./lease.ts";
export type { Advice } from "./madvise.ts";
export { Mapping, type MappingRange, notAMapping } from "./mapping.ts";
export {
  type AddressSpaceStats,
  formatMaps,
  formatSmaps,
  mapsAddresses,
  type PageStates,
  pageStates,
  smapsFigure,
} from "./maps.ts";
export { MemoryObject, type PinMode } from "./memory-object.ts";
export type { MmapOptions } from "./mmap.ts";
export type { MremapOptions } from "./mremap.ts";
export {
  forEachPaged,
  isZeroPage,
  poisonedError,
  poisonedIn,
  readPages,
  type Transit,
  waitWhileBusy,
} from "./object-content.ts";
export {
  framePfn,
  hostPfn,
  isolateEntries,
  landPages,
  migrateToRam,
  poisonPages,
  restorePages,
} from "./object-migrate.ts";
export { pagesAreReady, preparePages } from "./object-prepare.ts";
export { type ObjectBlock, PageFlag } from "./page-flags.ts";
export { firstEntry, PageTable } from "./page-table.ts";
export { type Allocation, type FrameBlock, PhysicalMemory } from "./physical-memory.ts";
export type {
  AdoptableMemory,
  CpuMmu,
  CpuTrap,
  CpuWindow,
  DevicePagemapOps,
  DeviceRun,
  MmNotifierHooks,
  MmuNotifierRange,
  MmuNotifyEvent,
  Pager,
} from "./ports.ts";
export * from "./pte.ts";
export { assertBytes } from "./range-args.ts";
export { changesIn, firstPartBehind, forEachPart, type PartedRange } from "./range-parts.ts";
export {
  announceOnObject,
  announceRuns,
  areReadOnly,
  areWritable,
  forEachMapping,
  isWritable,
  rewriteEntries,
  writeProtectPages,
  writeProtectRuns,
} from "./rmap.ts";
export { type MigrateCause, traceMigrate, traceShown, traceSpace } from "./trace-mm.ts";
export { validateMm } from "./validate.ts";
export { type Prot, Vma, VmFlags } from "./vma.ts";
export { createWindowMemory } from "./window-memory.ts";
export { inOneWindow, windowEnd } from "./window-pages.ts";
export { msync, writeBack } from "./writeback.ts";
