/** How the steps of a schedule touch variables, and whether two steps may change places. */

/** How a step touches a variable. The masks of two steps conflict as {@link conflicts} says. */
export const Access = {
  /** Depends on nobody replacing the whole of which this reads a part. */
  Part: 1,
  Read: 2,
  /** Changes it in a way that another such change commutes with: a count that goes up, a part of a whole. */
  Update: 4,
  Write: 8,
  /** Only asks whether a count is 0, which it never is: see {@link Count}. */
  Zero: 16,
} as const;

/**
 * A count that a step changed, which some step only asked whether it is 0. As long as it is above 0 whatever the order, who
 * asks and who counts may change places. That is taken for granted until a run shows the contrary.
 */
export interface Count {
  readonly variable: number;
  /** Of the class, by which such counts are known. */
  readonly name: string;
  readonly delta: number;
  /** Before the change. */
  readonly value: number;
}

/** Variables and masks of {@link Access}. */
export type Accesses = ReadonlyMap<number, number>;

const against = (mask: number): number =>
  (mask & Access.Part ? Access.Write : 0) |
  (mask & Access.Read ? Access.Update | Access.Write : 0) |
  (mask & Access.Update ? Access.Read | Access.Write : 0) |
  (mask & Access.Write ? 31 : 0) |
  (mask & Access.Zero ? Access.Write : 0);

const AGAINST = Uint8Array.from({ length: 32 }, (_, mask) => against(mask));

/** Whether two accesses of one variable would do something else in the other order. */
export function conflicts(a: number, b: number): boolean {
  return (AGAINST[a] & b) !== 0;
}

/** Whether two steps would do something else in the other order. */
export function conflict(a: Accesses, b: Accesses): boolean {
  const [few, many] = a.size < b.size ? [a, b] : [b, a];
  for (const [variable, mask] of few) {
    if (conflicts(mask, many.get(variable) ?? 0)) {
      return true;
    }
  }
  return false;
}
