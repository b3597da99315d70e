/** What the device needs of svm mode: imported when somebody uses it, so that bundlers make it a chunk of its own. */
export { adviceCode } from "./advice.ts";
export { compileSvmKernel } from "./compile-svm.ts";
export { SvmDevice } from "./svm-device.ts";
export { SvmKernel } from "./svm-kernel.ts";
