/**
 * Kernels that write variables of their own, `var<storage, read_write>`. Such writes cannot wait in the store log, which
 * holds words: in the checked pipeline an invocation makes them in a second run, when its first has had no fault.
 *
 *     out[i] = f(x);    if (pm_committing == 0u) { _ = i; _ = f(x); pm_again = 1u; } else { out[i] = f(x); }
 *
 * The second run must go as the first did, so a read of what the run itself has stored is found out in the first, and fails
 * the dispatch. If the result of an atomic is used, atomics are applied where they stand, once, and recorded.
 */
import type { AbstractElem, ExpressionElem, FnElem } from "wesl";
import type { KernelReflection } from "../reflect.ts";
import { type Access, findAccesses, indicesOf } from "./bound-access.ts";
import { BoundAtomic } from "./bound-atomic.ts";
import { Fatal } from "./control-layout.ts";
import { calledName, everything, type ParsedKernel } from "./parse-kernel.ts";
import type { Edits } from "./source-text.ts";

/** What the checked pipeline has to be able to do for them. */
export interface BoundWrites {
  /** Some writes wait for a second run. */
  readonly deferred: boolean;
  /** The most atomics that one run applies where they stand; Infinity in a loop. */
  readonly recorded: number;
  /** What is both read and stored to, as it stands in the source. */
  readonly reread: readonly string[];
  /** Functions that the edited source calls. */
  readonly wgsl: string;
  /** Edits the source, where accesses begin at such places. Edits that others make of expressions come before. */
  edit(edits: Edits, isMeant?: (place: number) => boolean): void;
  /** Statements after which reads of what was stored until then are fine, for it is committed. */
  readonly forget: string;
}

/** What stores and reads are told apart by: a variable, or a member of one, and the first index in it. */
interface Place {
  readonly number: number;
  readonly label: string;
  readonly isMember: boolean;
  reads: boolean;
  stores: boolean;
}

/**
 * Finds what the reached functions do to the kernel's own `read_write` variables; undefined when it has none.
 *
 * Errors: ENOTSUP, with line and column, for what a second run could not do as the first: those of {@link findAccesses},
 * storageBarrier or a missing index where something is both read and stored to.
 */
export function boundWrites(
  kernel: ParsedKernel,
  reflection: KernelReflection,
  reached: readonly FnElem[],
  collective: ReadonlySet<string>,
): BoundWrites | undefined {
  const names = new Set(reflection.bindings.flatMap((b) => (b.kind === "storage-read-write" ? [b.name] : [])));
  if (names.size === 0) {
    return undefined;
  }
  const accesses = reached.flatMap((fn) => findAccesses(kernel, fn, names, collective));
  const places = new Places(accesses);
  const { reread } = places;
  checkBarriers(kernel, reached, reread);
  checkIndices(kernel, accesses, places);
  const atomics = accesses.filter((access) => access.how === "atomic");
  const immediate = atomics.some(
    ({ call, statement }) => statement === undefined || (call && calledName(kernel, call) === "atomicLoad"),
  );
  const applied = immediate ? atomics.map((access, i) => new BoundAtomic(kernel, access, i)) : [];
  const deferred = accesses.filter((access) =>
    access.how === "atomic" ? !immediate : access.how === "store" || access.how === "update",
  );
  return {
    deferred: deferred.length > 0,
    recorded: applied.reduce((sum, { access }) => sum + (access.inLoop ? Number.POSITIVE_INFINITY : 1), 0),
    reread: reread.map((place) => place.label),
    wgsl: [...reread.map(placeWgsl), ...applied.map((atomic) => atomic.wgsl())].join("\n"),
    forget: reread.map(({ number }) => `pm_low_${number} = 0xffffffffu; pm_high_${number} = 0u;`).join(" "),
    edit: (edits, isMeant = () => true) => {
      for (const access of accesses.filter(({ start }) => isMeant(start))) {
        const index = places.indexOf(access);
        const place = places.of(access);
        if (access.how === "read" && place?.stores && index !== undefined) {
          edits.insert(startOf(index), `pm_bound_read_${place.number}(u32(`);
          edits.insert(endOf(index), "))");
        }
      }
      for (const atomic of applied.filter(({ access }) => isMeant(access.start))) {
        atomic.edit(edits);
      }
      // Last: what is copied is copied with its edits.
      for (const access of deferred.filter(({ start }) => isMeant(start))) {
        defer(kernel, access, places, edits);
      }
    },
  };
}

class Places {
  readonly #byPath = new Map<string, Place>();

  /** Where some access is to a whole variable, all of it is one place. */
  constructor(accesses: readonly Access[]) {
    const plain = accesses.filter(({ how }) => how !== "atomic");
    const whole = new Set(plain.flatMap(({ name, steps }) => (steps.length === 0 ? [name] : [])));
    let number = 0;
    for (const { name, steps, how } of plain) {
      const [step] = steps;
      const path = step !== undefined && "member" in step ? `${name}.${step.member}` : name;
      const label = whole.has(name) ? name : path;
      const place = this.#byPath.get(label) ?? {
        number: number++,
        label,
        isMember: label !== name,
        reads: false,
        stores: false,
      };
      this.#byPath.set(label, place);
      this.#byPath.set(path, place);
      place.reads ||= how !== "store";
      place.stores ||= how !== "read";
    }
  }

  of({ name, steps: [step] }: Access): Place | undefined {
    const path = step !== undefined && "member" in step ? `${name}.${step.member}` : name;
    return this.#byPath.get(path);
  }

  /** The index that tells what is accessed from the rest of its place. */
  indexOf(access: Access): ExpressionElem | undefined {
    const step = access.steps[this.of(access)?.isMember ? 1 : 0];
    return step !== undefined && "index" in step ? step.index : undefined;
  }

  get reread(): readonly Place[] {
    return [...new Set(this.#byPath.values())].filter((place) => place.reads && place.stores);
  }
}

function checkBarriers(kernel: ParsedKernel, reached: readonly FnElem[], [place]: readonly Place[]): void {
  for (const fn of place === undefined ? [] : reached) {
    for (const elem of everything(fn)) {
      if (elem.kind === "call-expression" && calledName(kernel, elem) === "storageBarrier") {
        throw kernel.source.error(
          "ENOTSUP",
          elem.start,
          `storageBarrier: ${place.label} is read and stored to, and is stored to only when all of the workgroup had no fault: hand values on in var<workgroup>, or use pm_store_… on the mapping's svm address`,
        );
      }
    }
  }
}

function checkIndices(kernel: ParsedKernel, accesses: readonly Access[], places: Places): void {
  for (const access of accesses) {
    const place = places.of(access);
    if (access.how === "read" && place?.stores && places.indexOf(access) === undefined) {
      throw kernel.source.error(
        "ENOTSUP",
        access.start,
        `${place.label} is read and stored to, without an index to tell the two apart: keep its value in a variable of the function`,
      );
    }
  }
}

/** What one run has stored lies in a range of indices. */
function placeWgsl({ number }: Place): string {
  return `
var<private> pm_low_${number}: u32 = 0xffffffffu;
var<private> pm_high_${number}: u32;
fn pm_bound_read_${number}(i: u32) -> u32 {
  if ((pm_committing == 0u) & (i >= pm_low_${number}) & (i <= pm_high_${number})) { pm_die(${Fatal.BoundReread}u, i); }
  return i;
}
fn pm_bound_stored_${number}(first: u32, last: u32) {
  if (pm_hurt == 0u) {
    pm_low_${number} = min(pm_low_${number}, first);
    pm_high_${number} = max(pm_high_${number}, last);
  }
}`;
}

/** Makes a statement wait for the second run: the first evaluates what it is made of, and notes where it will store. */
function defer(kernel: ParsedKernel, access: Access, places: Places, edits: Edits): void {
  const { statement } = access;
  const place = places.of(access);
  if (statement === undefined) {
    return;
  }
  const { text } = kernel.source;
  const copy = (elem: AbstractElem) => inOneLine(edits.slice(text, startOf(elem), endOf(elem)));
  const before: string[] = [];
  const after: string[] = [];
  const values = indicesOf(access);
  if (access.how !== "atomic" && place?.reads) {
    const index = places.indexOf(access);
    before.push(`let pm_i = ${index === undefined ? "0u" : `u32(${copy(index)})`};`);
    if (access.how === "update") {
      before.push(`_ = pm_bound_read_${place.number}(pm_i);`);
    }
    after.push(`pm_bound_stored_${place.number}(pm_i, ${index === undefined ? "0xffffffffu" : "pm_i"});`);
    values.splice(0, values.length, ...values.filter((value) => value !== index));
  }
  values.push(...(access.call?.arguments.slice(1) ?? []));
  if (access.call === undefined && statement.kind === "assign") {
    values.push(statement.rhs);
  }
  const first = [...before, ...values.map((value) => `_ = ${copy(value)};`), ...after].join(" ");
  const end = endOf(statement);
  const closed = text[end - 1] === ";";
  edits.insert(startOf(statement), `if (pm_committing == 0u) { ${first} pm_again = 1u; } else { `);
  edits.insert(closed || text[end] !== ";" ? end : end + 1, closed || text[end] === ";" ? " }" : "; }");
}

function startOf(elem: AbstractElem): number {
  return (elem as { start: number }).start;
}

function endOf(elem: AbstractElem): number {
  return (elem as { end: number }).end;
}

/** And without comments. */
function inOneLine(wgsl: string): string {
  return wgsl.replace(/\/\/.*|\/\*[\s\S]*?\*\//g, " ").replace(/\s+/g, " ");
}
