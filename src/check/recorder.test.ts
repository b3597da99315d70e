/** What a step touches, and when two steps may change places. */
import { beforeEach, expect, test } from "vitest";
import { Access, type Accesses, conflict } from "./access.ts";
import { AccessRecorder } from "./recorder.ts";

let recorder: AccessRecorder;

beforeEach(() => {
  recorder = new AccessRecorder();
  recorder.forget();
  recorder.reset(true);
});

/** What a step of some task does. */
function step(body: () => void, { job = 1, task = 0 } = {}): Accesses {
  recorder.start(job, task);
  body();
  return recorder.stop();
}

const { Read, Update, Write } = Access;
const make = <T extends object>(object: T): T => recorder.make(object) as T;
const conflictOf = (a: () => void, b: () => void) => conflict(step(a), step(b, { job: 2, task: 1 }));

test("reads commute, counts commute, and a write commutes with nothing", () => {
  const object = make({});
  const of =
    (mask: number, key = "k") =>
    () =>
      void recorder.access(object, key, mask);
  const kinds = [Read, Update, Write];
  expect(kinds.map((a) => kinds.map((b) => conflictOf(of(a), of(b))))).toEqual([
    [false, true, true],
    [true, false, true],
    [true, true, true],
  ]);
  expect(conflictOf(of(Write), of(Write, "other"))).toBe(false);
});

test("entries of a map are apart, who walks through it meets all, and who is added first comes first", () => {
  const map = make(new Map([["a", 1]]));
  const call = (method: string, key: unknown) => () => {
    recorder.keyed(map, method);
    recorder.key(key, Write);
  };
  const walk = () => void recorder.call(map, "forEach");
  expect(conflictOf(call("set", "a"), call("get", "b"))).toBe(false);
  expect(conflictOf(call("set", "a"), call("get", "a"))).toBe(true);
  expect(conflictOf(call("set", "a"), walk)).toBe(true);
  expect(conflictOf(call("get", "a"), walk)).toBe(false);
  expect(conflictOf(call("set", "b"), call("set", "c"))).toBe(true);
  expect(conflictOf(call("set", "a"), call("set", "b"))).toBe(false);
  expect(conflictOf(call("delete", "nobody"), walk)).toBe(false);
});

test("elements of a typed array are apart, in every view of it, and filling it touches all", () => {
  const array = make(new Uint32Array(8));
  const view = make(array.subarray(2));
  const write = (of: Uint32Array, index: number) => () => {
    recorder.keyed(of, undefined);
    recorder.key(index, Write);
  };
  expect(conflictOf(write(array, 2), write(array, 3))).toBe(false);
  expect(conflictOf(write(array, 2), write(view, 0))).toBe(true);
  expect(conflictOf(write(array, 2), () => void recorder.call(view, "fill"))).toBe(true);
  expect(conflictOf(write(array, 2), () => void recorder.access(array, "length", Read))).toBe(false);
});

test("an object is called the same in another run, in whichever order it is met", () => {
  const run = (order: readonly number[]) => {
    recorder.reset(true);
    const objects = [make({}), make({})];
    return order.map((i, at) => [i, ...step(() => void recorder.access(objects[i], "k", Write), { job: at + 7 })]);
  };
  expect(run([1, 0])).toEqual(run([0, 1]).reverse());
});

test("an object that nobody saw being made, and that two tasks meet, is told", () => {
  const hidden = {};
  step(() => void recorder.access(hidden, "k", Read));
  expect(recorder.unnamed).toBeUndefined();
  step(() => void recorder.access(hidden, "k", Read), { job: 2, task: 1 });
  expect(recorder.unnamed).toBeDefined();
});
