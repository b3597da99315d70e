/**
 * What each step reads and writes: properties of objects, entries of maps and sets, elements of typed arrays.
 *
 * Each of those is a number that is the same in every run that begins alike, so that what a step did in one run can be
 * compared with a step of another. An object is named when it is made, after the job that makes it.
 */
import { Access, type Accesses, type Count } from "./access.ts";

/** Methods of collections that change nothing. */
const READERS = new Set(
  "get has forEach entries keys values at includes indexOf find findIndex findLast findLastIndex filter map flatMap slice some every reduce join concat size length toString".split(
    " ",
  ),
);

type Keyed = ReadonlyMap<unknown, unknown> | ReadonlySet<unknown> | WeakMap<object, unknown> | WeakSet<object>;
type Elements = Uint8Array;

const isKeyed = (object: object): object is Keyed =>
  object instanceof Map || object instanceof Set || object instanceof WeakMap || object instanceof WeakSet;
const isCollection = (object: object): boolean =>
  isKeyed(object) || Array.isArray(object) || ArrayBuffer.isView(object);

/**
 * What an object shows a part of: views of one buffer show the same elements. Undefined for memory that threads share: the
 * bytes of pages, on which no task's way depends.
 */
function wholeOf(object: object): object | undefined {
  const whole = ArrayBuffer.isView(object) ? object.buffer : object;
  return whole instanceof SharedArrayBuffer ? undefined : whole;
}

interface Name {
  readonly object: number;
  /** Variables of the object by key. */
  readonly variables: Map<unknown, number>;
  /** The task that met it first, if nobody saw it being made. */
  metBy: number | undefined;
}

const ASIDE: Name = { object: -1, variables: new Map(), metBy: undefined };

const OUTSIDE = -1;

/** Records while it is told to. */
export class AccessRecorder {
  #names = new WeakMap<object, Name>();
  /** Numbers of objects and of variables by place; kept from run to run. */
  #objects = new Map<number, number>();
  #variables = new Map<string, number>();
  /** What modules make when they are loaded is there in every run. */
  readonly #lasting = new WeakMap<object, number>();
  #lastingMade = 0;
  #loading = false;
  #naming = false;
  #maker = 0;
  #made = 0;
  #met = 0;
  #task = OUTSIDE;
  #accesses: Map<number, number> | undefined;
  #counts: Count[] = [];
  /** Counts by name that some order takes to 0. */
  readonly #mayBeZero = new Set<string>();
  /** Collections whose key or index is being computed. */
  readonly #pending: { readonly object: unknown; readonly method: string | undefined }[] = [];
  /** What two tasks shared, and nobody saw being made: its name may differ from run to run. */
  #unnamed: string | undefined;

  /** A new search: what was numbered before means nothing any more. */
  forget(): void {
    this.#objects = new Map();
    this.#variables = new Map();
    this.#mayBeZero.clear();
    this.#unnamed = undefined;
  }

  /** Modules are loaded. */
  load<T>(body: () => T): T {
    this.#loading = true;
    try {
      return body();
    } finally {
      this.#loading = false;
    }
  }

  /** A new run: other objects. */
  reset(naming: boolean): void {
    this.#names = new WeakMap();
    this.#naming = naming;
    this.#maker = 0;
    this.#made = 0;
    this.#met = 0;
    this.#task = OUTSIDE;
    this.#accesses = undefined;
    this.#pending.length = 0;
  }

  /** A step begins: everything that it makes is named after its job. */
  start(job: number, task: number): void {
    this.startAgain(job, task);
    this.#accesses = new Map();
    this.#counts = [];
  }

  /** A step begins of which it is known what it accesses. */
  startAgain(job: number, task: number): void {
    this.#maker = job;
    this.#made = 0;
    this.#met = 0;
    this.#task = task;
    this.#pending.length = 0;
    this.#naming = true;
  }

  /** What the step counted. */
  get counts(): readonly Count[] {
    return this.#counts;
  }

  /** Who asks whether these counts are 0 sees their value from now on. */
  mayBeZero(name: string): void {
    this.#mayBeZero.add(name);
  }

  /** Objects that the step made so far, or what came before the first one: the same whenever it runs again. */
  get made(): number {
    return this.#made;
  }

  /** What was accessed since {@link start}. */
  stop(): Accesses {
    const accesses = this.#accesses ?? new Map();
    this.#accesses = undefined;
    this.#naming = false;
    return accesses;
  }

  /** What is not named as it should be, if anything is. */
  get unnamed(): string | undefined {
    return this.#unnamed;
  }

  /** An object was made. */
  make(object: unknown): unknown {
    if (typeof object !== "object" || object === null) {
      return object;
    }
    const whole = wholeOf(object);
    if (whole === undefined) {
      return object;
    }
    if (this.#loading) {
      this.#lasting.set(whole, --this.#lastingMade);
    } else if (this.#naming) {
      const known = this.#names.get(whole);
      if (known === undefined) {
        this.#names.set(whole, this.#newName(undefined));
      } else {
        known.metBy = undefined;
      }
    }
    return object;
  }

  /** An object was made by who only watches, such as lockdep: nobody's way depends on it. */
  aside(object: unknown): unknown {
    if (typeof object === "object" && object !== null) {
      this.#names.set(object, ASIDE);
    }
    return object;
  }

  /** A property is read, written or, as a statement of its own, counted up or down. */
  access(object: unknown, key: string, mask: number): unknown {
    if (this.#naming && typeof object === "function" && mask > Access.Read) {
      this.#unnamed ??= `the property ${key} of a function`;
    }
    if (this.#naming && object !== null && typeof object === "object") {
      if (ArrayBuffer.isView(object)) {
        // How long it is never changes.
        if (key === "*") {
          this.#add(object, key, mask);
        }
      } else if (isCollection(object)) {
        this.#add(object, "*", mask);
      } else if (key === "*") {
        // A copy of all that it has.
        for (const own of Object.keys(object)) {
          this.#add(object, own, mask);
        }
      } else {
        this.#add(object, key, mask);
      }
    }
    return object;
  }

  /** A loop over an object that waits in its body: it reads again in later steps. */
  walk<T>(object: Iterable<T>): Iterable<T> {
    const recorder = this;
    return (function* () {
      const items = object[Symbol.iterator]();
      for (;;) {
        recorder.access(object, "*", Access.Read);
        const item = items.next();
        if (item.done) {
          return;
        }
        yield item.value;
      }
    })();
  }

  /** A property is counted up or down as a statement of its own, or is asked whether it is 0 (afterwards). */
  count(object: unknown, key: string, delta: number, tested: boolean, value: unknown): unknown {
    if (typeof object !== "object" || object === null || isCollection(object) || typeof value !== "number") {
      return this.access(object, key, delta === 0 ? Access.Read : Access.Read | Access.Write);
    }
    if (this.#naming) {
      const name = `${object.constructor?.name}.${key}`;
      const asks = tested ? (this.#mayBeZero.has(name) ? Access.Read : Access.Zero) : 0;
      const variable = this.#add(object, key, asks | (delta === 0 ? 0 : Access.Update));
      if (variable !== undefined) {
        this.#counts.push({ variable, name, delta, value });
      }
    }
    return object;
  }

  /** A method is called: of a collection it reads or writes its contents, of another object its body tells. */
  call(object: unknown, method: string): unknown {
    if (
      this.#naming &&
      typeof object === "object" &&
      object !== null &&
      isCollection(object) &&
      method !== "subarray"
    ) {
      this.#add(object, "*", READERS.has(method) ? Access.Read : Access.Write);
    }
    return object;
  }

  /** An element's index, or the key that a method of a collection is called with, comes next: {@link key} is told it. */
  keyed(object: unknown, method: string | undefined): unknown {
    if (this.#naming) {
      this.#pending.push({ object, method });
    }
    return object;
  }

  /** The key of the innermost {@link keyed}. `write` is of an element. */
  key(key: unknown, mask: number): unknown {
    const { object, method } = this.#pending.pop() ?? {};
    if (!this.#naming || typeof object !== "object" || object === null) {
      return key;
    }
    if (method !== undefined) {
      this.#keyedCall(object, method, key);
    } else if (ArrayBuffer.isView(object)) {
      this.#element(object as Elements, key as number, mask);
    } else if (Array.isArray(object)) {
      this.#add(object, "*", mask);
    } else {
      this.#add(object, key, mask);
    }
    return key;
  }

  #keyedCall(object: object, method: string, key: unknown): void {
    if (!isKeyed(object)) {
      this.call(object, method);
      return;
    }
    const has = object.has(key as never);
    const changes = method === "set" || (method === "add" && !has) || (method === "delete" && has);
    this.#add(object, this.#keyName(key), changes ? Access.Write : Access.Read);
    if (changes) {
      this.#add(object, "*", Access.Update);
      if (!has && (object instanceof Map || object instanceof Set)) {
        // Who is added first comes first, which only those who walk through it all can tell.
        this.#add(object, "order", Access.Write);
      }
    }
  }

  #element(array: Elements, index: number, mask: number): void {
    const place = array.byteOffset + index * array.BYTES_PER_ELEMENT;
    this.#add(array, place, mask);
    this.#add(array, "*", mask === Access.Read ? Access.Part : Access.Update);
  }

  #keyName(key: unknown): unknown {
    return typeof key === "object" && key !== null ? `object ${this.#nameOf(key).object}` : key;
  }

  #add(of: object, key: unknown, mask: number): number | undefined {
    const whole = wholeOf(of);
    if (whole === undefined) {
      return undefined;
    }
    const name = this.#nameOf(whole);
    const accesses = this.#accesses;
    if (accesses !== undefined && name !== ASIDE) {
      let variable = name.variables.get(key);
      if (variable === undefined) {
        const place = `${name.object}/${typeof key === "number" ? key : String(key)}`;
        variable = this.#variables.get(place) ?? this.#variables.size;
        this.#variables.set(place, variable);
        name.variables.set(key, variable);
      }
      accesses.set(variable, (accesses.get(variable) ?? 0) | mask);
      return variable;
    }
    return undefined;
  }

  #nameOf(object: object): Name {
    const name = this.#names.get(object);
    if (name === undefined) {
      const lasting = this.#lasting.get(object);
      const made =
        lasting === undefined
          ? this.#newName(this.#task, false)
          : { object: lasting, variables: new Map(), metBy: undefined };
      this.#names.set(object, made);
      return made;
    }
    if (name.metBy !== undefined && name.metBy !== this.#task) {
      this.#unnamed ??= `${object.constructor?.name ?? "an object"} with ${Object.keys(object).join(", ")}`;
    }
    return name;
  }

  #newName(metBy: number | undefined, seen = true): Name {
    const place = this.#maker * 2 ** 20 + (seen ? this.#made++ : 2 ** 19 + this.#met++);
    const object = this.#objects.get(place) ?? this.#objects.size;
    this.#objects.set(place, object);
    return { object, variables: new Map(), metBy: metBy === OUTSIDE ? undefined : metBy };
  }
}
