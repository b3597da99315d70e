import fc from "fast-check";
import { expect, test } from "vitest";
import { assertProperty } from "./property.ts";

const small = (n: number) => {
  if (n >= 1000) {
    throw new Error(`${n} is too much`);
  }
};
const numbers = fc.nat(1_000_000);
const always = fc.asyncProperty(numbers, async (n) => small(n));
const failure = <T>(property: fc.IAsyncProperty<T>, shrinkMs?: number) =>
  assertProperty(property, { numRuns: 50 }, shrinkMs).then(
    () => undefined,
    (error: Error) => error,
  );

test("a failure is told by its smallest example, with seed and path, and with what was thrown", async () => {
  const error = await failure(always);
  expect(error?.message).toMatch(/seed: -?\d+, path: "[\d:]+"[\s\S]*Counterexample: \[1000\]/);
  expect(error?.cause).toMatchObject({ message: "1000 is too much" });
});

test("when there is no time to look for a smaller one it is told as it was found", async () => {
  const error = await failure(always, 0);
  expect(error?.message).toMatch(/seed: -?\d+, path: "\d+"[\s\S]*Counterexample: \[\d+\]\nShrunk 0 time/);
});

test("a failure that does not come again is told, too", async () => {
  let failed = false;
  const once = fc.asyncProperty(numbers, async () => {
    const isFirst = !failed;
    failed = true;
    if (isFirst) {
      throw new Error("only once");
    }
  });
  expect(await failure(once)).toMatchObject({ cause: { message: "only once" } });
});

test("what holds passes", async () => {
  expect(await failure(fc.asyncProperty(numbers, async () => undefined))).toBeUndefined();
});
