/** Packs the values that a dispatch gives into the bytes of the uniform `params`. */
import { KernelError } from "../../base/index.ts";
import { floatToHalf } from "./half.ts";
import type { ParamMember, ParamsLayout } from "./params-layout.ts";

/**
 * A number for a scalar; for vectors, matrices and arrays their numbers in the order in which they lie in memory, as an
 * array or a typed one.
 */
export type ParamValue = number | bigint | ArrayLike<number | bigint>;

/** Values by member name. */
export type ParamValues = Readonly<Record<string, ParamValue>>;

const NO_BYTES = new Uint8Array(0);

/** A member of this name is padding: it may be left out and is then zero. */
const PADDING = /^_/;

/**
 * Returns the uniform's bytes, a multiple of 4 of them.
 *
 * Errors: EINVAL for a name that is no member, a member without a value (unless its name begins with `_`), the wrong number
 * of numbers, a number that does not fit an i32 or u32 or is no integer, and a value for a kernel without `params`.
 */
export function packParams(
  layout: ParamsLayout | undefined,
  values: ParamValues,
  op = "dispatch",
): Uint8Array<ArrayBuffer> {
  if (layout === undefined && Object.keys(values).length === 0) {
    return NO_BYTES;
  }
  const members = layout?.members ?? [];
  const list = members.map((member) => `${member.name}: ${member.typeName}`).join(", ");
  const known = new Set(members.map((member) => member.name));
  for (const name of Object.keys(values)) {
    if (!known.has(name)) {
      const there = layout === undefined ? "the kernel uses no uniform variable params" : `there is ${list}`;
      throw new KernelError("EINVAL", op, `params has no member "${name}": ${there}`);
    }
  }
  const bytes = new Uint8Array(Math.ceil((layout?.bytes ?? 0) / 4) * 4);
  const view = new DataView(bytes.buffer);
  for (const member of members) {
    const value = Object.hasOwn(values, member.name) ? values[member.name] : undefined;
    if (value !== undefined) {
      packMember(view, member, value, op);
    } else if (!PADDING.test(member.name)) {
      throw new KernelError("EINVAL", op, `params needs a value for "${member.name}": its members are ${list}`);
    }
  }
  return bytes;
}

function packMember(view: DataView, member: ParamMember, value: ParamValue, op: string): void {
  const { rows, columns, elements } = member;
  const numbers = typeof value === "object" && value !== null ? value : [value];
  const needed = rows * columns * elements;
  if (numbers.length !== needed) {
    throw new KernelError(
      "EINVAL",
      op,
      `params.${member.name} is ${member.typeName} and takes ${needed} ${needed === 1 ? "number" : "numbers"}, not ${numbers.length}`,
    );
  }
  const scalarBytes = member.scalar === "f16" ? 2 : 4;
  for (let i = 0; i < needed; i++) {
    const row = i % rows;
    const column = Math.floor(i / rows) % columns;
    const element = Math.floor(i / (rows * columns));
    packScalar(
      view,
      member.offset + element * member.elementStride + column * member.columnStride + row * scalarBytes,
      member,
      numbers[i],
      op,
    );
  }
}

function packScalar(view: DataView, at: number, member: ParamMember, given: number | bigint, op: string): void {
  const { scalar } = member;
  if (typeof given !== "number" && typeof given !== "bigint") {
    throw new KernelError("EINVAL", op, `params.${member.name} is ${member.typeName}: ${String(given)} is no number`);
  }
  const value = Number(given);
  switch (scalar) {
    case "f32":
      view.setFloat32(at, value, true);
      return;
    case "f16":
      view.setUint16(at, floatToHalf(value), true);
      return;
    case "i32":
    case "u32": {
      const [low, high] = scalar === "i32" ? [-(2 ** 31), 2 ** 31 - 1] : [0, 2 ** 32 - 1];
      if (!Number.isInteger(value) || value < low || value > high) {
        throw new KernelError(
          "EINVAL",
          op,
          `params.${member.name} is ${scalar}: ${given} is no integer from ${low} to ${high}`,
        );
      }
      view.setUint32(at, value >>> 0, true);
      return;
    }
    default:
      scalar satisfies never;
  }
}
