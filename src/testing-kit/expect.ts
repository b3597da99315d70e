/** The few expectations that the suite needs, without a test runner's help. */
import { KernelError } from "../base/index.ts";

/** @throws Error with both values when they are not the same */
export function equal(actual: unknown, expected: unknown, what: string): void {
  if (!Object.is(actual, expected)) {
    throw new Error(`${what}: expected ${String(expected)}, got ${String(actual)}`);
  }
}

/** @throws Error that names the first byte that differs */
export function equalBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  equal(actual.length, expected.length, `${what}, length`);
  for (let i = 0; i < expected.length; i++) {
    if (actual[i] !== expected[i]) {
      throw new Error(`${what}: byte ${i} is ${actual[i]}, not ${expected[i]}`);
    }
  }
}

/** @throws Error when the operation succeeds, or fails with another code than one of these */
export async function fails(operation: Promise<unknown>, codes: readonly string[], what: string): Promise<void> {
  try {
    await operation;
  } catch (error) {
    if (error instanceof KernelError && codes.includes(error.code)) {
      return;
    }
    throw new Error(`${what}: expected ${codes.join(" or ")}, got ${String(error)}`, { cause: error });
  }
  throw new Error(`${what}: expected ${codes.join(" or ")}, but it succeeded`);
}

/** Bytes that say where they are. */
export function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 8) * 7 + seed * 101 + 1) & 255);
}
