/**
 * The leak ledger: how many objects of each owned kind are alive. Tests end with every count back where it started.
 */

/** What is counted. */
export type LedgerKind =
  | "mm users"
  | "mm count"
  | "memory object"
  | "frame block"
  | "notifier"
  | "hmm"
  | "mirror"
  | "range"
  | "lease"
  | "file"
  | "gpu buffer"
  | "gpu device";

interface Entry {
  readonly kind: LedgerKind;
  readonly stack: string | undefined;
}

const counts = new Map<LedgerKind, number>();
let entries: Set<Entry> | undefined;

/** One counted object. `end` is idempotent. */
export interface LedgerEntry {
  end(): void;
}

/** Counts a new object until its entry ends. */
export function ledgerTrack(kind: LedgerKind): LedgerEntry {
  counts.set(kind, (counts.get(kind) ?? 0) + 1);
  const entry: Entry | undefined = entries === undefined ? undefined : { kind, stack: new Error(kind).stack };
  if (entry !== undefined) {
    entries?.add(entry);
  }
  let live = true;
  return {
    end() {
      if (live) {
        live = false;
        counts.set(kind, (counts.get(kind) ?? 0) - 1);
        if (entry !== undefined) {
          entries?.delete(entry);
        }
      }
    },
  };
}

/** Adds to a count without an entry, for objects too many to track one by one. */
export function ledgerCount(kind: LedgerKind, delta: number): void {
  counts.set(kind, (counts.get(kind) ?? 0) + delta);
}

/** The counts that are not zero. */
export function ledgerCounts(): Partial<Record<LedgerKind, number>> {
  return Object.fromEntries([...counts].filter(([, n]) => n !== 0));
}

/** Keeps creation stacks from now on (`true`), or stops. For tests: a stack an object is slow. */
export function ledgerKeepStacks(keep: boolean): void {
  entries = keep ? new Set() : undefined;
}

/** Creation stacks of what is alive; empty unless {@link ledgerKeepStacks} is on. */
export function ledgerStacks(): readonly { readonly kind: LedgerKind; readonly stack: string | undefined }[] {
  return [...(entries ?? [])];
}
