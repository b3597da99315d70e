/** Which kernels are of svm mode. */

/** The import path of the functions. */
export const SVM_MODULE = "pagemirror::svm";

/** Whether a kernel calls functions of svm mode. */
export function usesSvm(wgsl: string): boolean {
  return new RegExp(`\\bpm_[a-z]|\\b${SVM_MODULE}\\b`).test(wgsl.replace(/\/\/.*|\/\*[\s\S]*?\*\//g, " "));
}
