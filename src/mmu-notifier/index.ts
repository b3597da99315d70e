export type { MmuNotifierRange, MmuNotifyEvent } from "../mm/index.ts";
export { rangeUpdateToReadOnly } from "./event.ts";
export { type IntervalFinish, MmuIntervalNotifier, type MmuIntervalNotifierOps } from "./interval.ts";
export { callNotifier, inNotifierCallback, MmuNotifier, type MmuNotifierOps } from "./notifier.ts";
export {
  mmuNotifierGet,
  mmuNotifierGetLocked,
  mmuNotifierPut,
  mmuNotifierRegister,
  mmuNotifierRegisterLocked,
  mmuNotifierSynchronize,
  mmuNotifierUnregister,
} from "./register.ts";
