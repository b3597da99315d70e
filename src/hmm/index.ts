export { type DmaDevice, type DmaDirection, hmmRangeDmaMap, hmmRangeDmaUnmap } from "./dma.ts";
export type { Hmm } from "./hmm.ts";
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
  type HmmTryAgain,
} from "./range.ts";
