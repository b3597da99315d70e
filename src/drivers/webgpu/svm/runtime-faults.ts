/**
 * What a run notes of the pages that it meets.
 *
 *     pm_hurt    this run is lost: it goes on only to find more faults
 *     pm_fault   it is lost because of a fault, so it will be run again
 *     pm_code    it is lost because of a fatal access
 */
import { Control, DEFAULT_FUEL, Fatal, FaultBit, headerWord, MOST_MISSES } from "./control-layout.ts";
import type { KernelFeatures } from "./kernel-features.ts";
import { SvmPte } from "./page-entry.ts";
import { TAINTED, WgFlag } from "./workgroup-flags.ts";

/** How the functions of a pipeline note what they meet. */
export interface FaultNotes {
  /** Variables and functions: `pm_hurt`, `pm_die(code, address)`. */
  readonly wgsl: string;
  /** Statements for an access: its address, entry, kind (one of `FaultBit`) and whether the page is there, as expressions. */
  access(address: string, entry: string, how: string, ok: string): string;
  /**
   * Statements for a vector at `a`, whose first word and whose last have the entries `e` and `f`, are there when `begins` and
   * `ends`, and both when `ok`. One place is noted: where both pages are missing, the second is found by the next run.
   */
  vector(how: string): string;
}

/** WGSL that is true when an entry asks for its use to be noted. */
function isTracked(entry: string): string {
  return `((${entry} & ${SvmPte.Track}u) != 0u)`;
}

const setWgsl = `
fn pm_set(base: u32, bit: u32) {
  atomicOr(&pm_ctl[base + (bit >> 5u)], 1u << (bit & 31u));
}`;

/**
 * For runs that tell the host of each page that they miss. `resuming`: of the first ones of an invocation, as many as the
 * header allows.
 */
export function thoroughNotes(features: KernelFeatures, resuming: boolean): FaultNotes {
  const access = (address: string, entry: string, how: string, ok: string) =>
    `if (!${ok} | ${isTracked(entry)}) { pm_event(${address}, ${entry}, select(${how}, 0u, ${ok})); }`;
  return {
    wgsl: faultWgsl(features, resuming),
    access,
    vector: (how) => `let late = begins & !(ends & ${isTracked("e")});
  let entry = select(e, f, late);
  let first = pm_broken_at(a, late);
  ${access("first", "entry", how, "ok")}`,
  };
}

/**
 * For runs that are likely to miss nothing, or one page: they tell of what they miss, end at once, and leave it to a thorough
 * run to say why an access can never be made.
 */
export const quickNotes: FaultNotes = {
  wgsl: `
var<private> pm_hurt: u32;
${setWgsl}
fn pm_die(code: u32, a: u32) { pm_hurt = 1u; }
`,
  access(address, entry, how, ok) {
    const writes = how === `${FaultBit.Write}u`;
    const mapped = `${writes ? "pm_writable" : "pm_readable"}(pm_word(${address}), ${entry})`;
    const area = headerWord(writes ? Control.WriteBits : Control.ReadBits);
    return `pm_hurt |= u32(!${ok});
  {
    let missed = ${mapped} & !${ok};
    if (missed | ${isTracked(entry)}) { pm_set(select(${headerWord(Control.AccessedBits)}, ${area}, missed), (${address}) >> 12u); }
  }`;
  },
  vector(how) {
    return `let entry = select(e, f, begins);
  let place = select(a, a + 3u, begins);
  ${quickNotes.access("place", "entry", how, "ok")}`;
  },
};

/**
 * For runs that miss nothing, as a rule, or only with stores: a load leaves what it misses to a thorough run. Of the pages
 * whose use is to be noted it is the last one's.
 */
export const guardedNotes: FaultNotes = {
  wgsl: `${quickNotes.wgsl}
var<private> pm_seen: u32;
`,
  access: (address, entry, how, ok) =>
    how === `${FaultBit.Write}u`
      ? quickNotes.access(address, entry, how, ok)
      : `pm_hurt |= u32(!${ok});
  pm_seen = select(pm_seen, ${address}, ${isTracked(entry)});`,
  vector: (how) => (how === `${FaultBit.Write}u` ? quickNotes.vector(how) : guardedNotes.access("a", "e", how, "ok")),
};

/** Statements for the end of a run with {@link guardedNotes}. */
export const noteSeen = `if (pm_seen != 0u) { pm_set(${headerWord(Control.AccessedBits)}, pm_seen >> 12u); }`;

/** Misses, fatal accesses, and the fuel that ends loops after them. */
function faultWgsl(features: KernelFeatures, resuming: boolean): string {
  const { collective } = features;
  const most = resuming
    ? `clamp(${headerWord(Control.MostFaults)}, 1u, ${MOST_MISSES}u)`
    : headerWord(Control.MostFaults);
  const wanted = resuming ? `(pm_missed <= ${most})` : "true";
  const tell = collective ? `atomicOr(&pm_wg_fault, ${WgFlag.Hurt}u);` : "";
  return `
// 0 or 1: what a turn of a loop takes from the fuel.
var<private> pm_hurt: u32;
var<private> pm_fault: u32;
// At 1, loops end after a miss.
var<private> pm_fuel: u32 = 1u;
var<private> pm_full: u32;
var<private> pm_committing: u32;
// Writes to variables of the kernel's own wait for a second run.
var<private> pm_again: u32;
var<private> pm_missed: u32;
var<private> pm_last: u32;
var<private> pm_last_but_one: u32;
${collective ? "var<workgroup> pm_wg_fault: atomic<u32>;\nvar<workgroup> pm_wg_stop: atomic<u32>;\nvar<workgroup> pm_wg_stopped: u32;" : ""}
fn pm_begin() {
  let fuel = ${headerWord(Control.Fuel)};
  pm_full = max(1u, select(fuel, ${DEFAULT_FUEL}u, fuel == 0u));
  pm_fuel = pm_full;
}
${setWgsl}
fn pm_event(a: u32, e: u32, how: u32) {
  let writes = how == ${FaultBit.Write}u;
  let mapped = pm_readable(pm_word(a), e);
  let locked = writes & !pm_writable(pm_word(a), e);
  let unmapped = select(${Fatal.ReadUnmapped}u, ${Fatal.WriteUnmapped}u, writes);
  let code = select(select(pm_committing * ${Fatal.NotRepeatable}u, ${Fatal.WriteReadOnly}u, locked), unmapped, !mapped);
  // What comes after a miss can be its consequence.
  let first = (how != 0u) & (pm_hurt == 0u);
  pm_addr = select(pm_addr, a, first);
  pm_code = select(pm_code, code, first);
  pm_fault = select(pm_fault, u32(code == 0u), first);
  pm_hurt |= min(how, 1u);
  let key = ((a >> 12u) << ${FaultBit.PageShift}u) | how;
  let again = ((key == pm_last) | (key == pm_last_but_one)) & !first;
  pm_last_but_one = select(pm_last, pm_last_but_one, key == pm_last);
  pm_last = key;
  if (!again) {
    // Another page is progress and worth more time, but not without end.
    pm_missed += min(how, 1u);
    pm_fuel = select(pm_full, 1u, pm_missed >= ${most});
    if ((how == 0u) | ((pm_code == 0u) & mapped & !locked & ${wanted})) {
      let faults = select(${headerWord(Control.ReadBits)}, ${headerWord(Control.WriteBits)}, writes);
      pm_set(select(faults, ${headerWord(Control.AccessedBits)}, how == 0u), a >> 12u);
    }
  }
  ${tell === "" ? "" : `if (how != 0u) { ${tell} }`}
}
fn pm_die(code: u32, a: u32) {
  if (pm_hurt == 0u) {
    pm_hurt = 1u;
    pm_fuel = 1u;
    pm_code = code;
    pm_addr = a;
    ${tell}
  }
}
${collective ? collectiveStop : ""}
`;
}

/** Statements at the start of a loop's body, of runs that end at the first miss. */
export const quickLoopCheck = " if (pm_hurt != 0u) { break; } ";

/**
 * Statements at the start of a loop's body; without a call, for what they cost in each turn. `together`: all invocations of
 * the workgroup go through the loop alike.
 */
export function loopCheck(features: KernelFeatures, together: boolean): string {
  if (together) {
    return " if (pm_stop_all()) { break; } ";
  }
  // What another invocation brought into workgroup memory after its fault can keep a loop going here.
  const taint = features.collective ? `pm_hurt |= min(1u, atomicLoad(&pm_wg_fault) & ${TAINTED}u); ` : "";
  return ` ${taint}if (pm_hurt >= pm_fuel) { break; } pm_fuel -= pm_hurt; `;
}

/** For loops with barriers: all invocations leave together. */
const collectiveStop = `
fn pm_stop_all() -> bool {
  pm_hurt |= min(1u, atomicLoad(&pm_wg_fault) & ${TAINTED}u);
  if (pm_hurt >= pm_fuel) { atomicStore(&pm_wg_stop, 1u); } else { pm_fuel -= pm_hurt; }
  workgroupBarrier();
  if (pm_lane == 0u) { pm_wg_stopped = atomicLoad(&pm_wg_stop); }
  return workgroupUniformLoad(&pm_wg_stopped) != 0u;
}
`;
