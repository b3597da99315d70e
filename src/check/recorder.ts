/** What each step reads and writes, property by property; the contents of a collection count as one. */

/** Methods of collections that change nothing. */
const READERS = new Set(
  "get has forEach entries keys values at includes indexOf find findIndex findLast findLastIndex filter map flatMap slice some every reduce join subarray concat size length toString".split(
    " ",
  ),
);

const MAX_KEYS = 4096;

/** The accesses of one step, as numbers that stand for an object and a property. */
export interface Accesses {
  readonly reads: ReadonlySet<number>;
  readonly writes: ReadonlySet<number>;
}

const isCollection = (object: object): boolean =>
  object instanceof Map || object instanceof Set || Array.isArray(object) || ArrayBuffer.isView(object);

/** Records while it is told to. */
export class AccessRecorder {
  #objects = new WeakMap<object, number>();
  #nextObject = 0;
  readonly #keys = new Map<string, number>();
  #reads: Set<number> | undefined;
  #writes = new Set<number>();

  /** A new run: other objects. */
  reset(): void {
    this.#objects = new WeakMap();
    this.#nextObject = 0;
    this.#reads = undefined;
  }

  start(): void {
    this.#reads = new Set();
    this.#writes = new Set();
  }

  /** What was accessed since {@link start}. */
  stop(): Accesses {
    const accesses = { reads: this.#reads ?? new Set<number>(), writes: this.#writes };
    this.#reads = undefined;
    return accesses;
  }

  access(object: unknown, key: string, write: boolean): unknown {
    if (this.#reads !== undefined && object !== null && (typeof object === "object" || typeof object === "function")) {
      (write ? this.#writes : this.#reads).add(this.#numberOf(object, isCollection(object) ? "*" : key));
    }
    return object;
  }

  /** A method is called: of a collection it reads or writes its contents, of another object its body tells. */
  call(object: unknown, method: string): unknown {
    return this.#reads !== undefined && typeof object === "object" && object !== null && isCollection(object)
      ? this.access(object, "*", !READERS.has(method))
      : object;
  }

  #numberOf(object: object, key: string): number {
    let number = this.#objects.get(object);
    if (number === undefined) {
      number = this.#nextObject++;
      this.#objects.set(object, number);
    }
    let index = this.#keys.get(key);
    if (index === undefined) {
      index = this.#keys.size;
      this.#keys.set(key, index);
    }
    return number * MAX_KEYS + index;
  }
}

/** Whether two steps would do something else in the other order. */
export function conflict(a: Accesses, b: Accesses): boolean {
  return meets(a.writes, b.writes) || meets(a.writes, b.reads) || meets(a.reads, b.writes);
}

function meets(a: ReadonlySet<number>, b: ReadonlySet<number>): boolean {
  const [few, many] = a.size < b.size ? [a, b] : [b, a];
  for (const item of few) {
    if (many.has(item)) {
      return true;
    }
  }
  return false;
}
