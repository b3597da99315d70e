/** What the invocations of a workgroup tell each other when one of them cannot go on. */

/** Bits of `pm_wg_fault`, what happened to any invocation of a workgroup. */
export const WgFlag = { Fault: 1, Dead: 2, Overflow: 4, Hurt: 8 } as const;

/** Those after which what other invocations find in workgroup memory can be wrong. */
export const TAINTED = WgFlag.Fault | WgFlag.Dead | WgFlag.Hurt;
