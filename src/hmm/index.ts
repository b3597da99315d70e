export { type DmaDevice, type DmaDirection, hmmRangeDmaMap, hmmRangeDmaUnmap } from "./dma.ts";
export { type HmmDmaDevice, HmmDmaMap, hmmDmaMapAlloc } from "./dma-map.ts";
export type { HmmTryAgain } from "./fault-loop.ts";
export type { Hmm } from "./hmm.ts";
export {
  HMM_PFN_ERROR,
  HMM_PFN_REQ_FAULT,
  HMM_PFN_REQ_WRITE,
  HMM_PFN_VALID,
  HMM_PFN_WRITE,
  hmmPfnToMapOrder,
  hmmPfnToPfn,
} from "./interval-pfns.ts";
export { HmmMirror, type HmmMirrorOps } from "./mirror.ts";
export {
  DEFAULT_PFN_FLAGS,
  DEFAULT_PFN_SHIFT,
  DEFAULT_PFN_VALUES,
  entryFromPfn,
  entryToPfn,
  type HmmPfnFlags,
  type HmmPfnFormat,
  type HmmPfnValues,
} from "./pfns.ts";
export {
  HMM_RANGE_DEFAULT_TIMEOUT,
  type HmmFaultOptions,
  HmmRange,
  type HmmRangeOptions,
} from "./range.ts";
export {
  type HmmIntervalRange,
  type HmmRangeFaultOptions,
  hmmRangeFault,
  hmmRangeFaultUnlocked,
} from "./range-fault.ts";
