/** Where the members of the uniform `params` lie. */
import type { TypeInfo } from "wgsl_reflect";
import { ArrayInfo, StructInfo } from "wgsl_reflect/wgsl_reflect.module.js";
import { KernelError } from "../../base/index.ts";

/** What a member's numbers are. */
export type ScalarType = "i32" | "u32" | "f32" | "f16";

/**
 * One member with values: a scalar, vector, matrix, or an array of these. A struct inside contributes its members as
 * `outer.inner`, an array of structs as `outer[0].inner`.
 */
export interface ParamMember {
  readonly name: string;
  readonly typeName: string;
  readonly offset: number;
  /** Bytes, from the first number to the end of the last. */
  readonly size: number;
  readonly scalar: ScalarType;
  /** Numbers a column: 1 for a scalar, 2 to 4 for a vector or a matrix's column. */
  readonly rows: number;
  /** 1, or a matrix's columns. */
  readonly columns: number;
  /** Bytes from a matrix's column to the next. */
  readonly columnStride: number;
  /** 1, or an array's elements. */
  readonly elements: number;
  /** Bytes from an array's element to the next. */
  readonly elementStride: number;
}

/** The whole uniform. */
export interface ParamsLayout {
  readonly bytes: number;
  readonly typeName: string;
  readonly members: readonly ParamMember[];
}

type Shape = Pick<ParamMember, "scalar" | "rows" | "columns" | "columnStride">;

const SCALAR_BYTES: Record<ScalarType, number> = { i32: 4, u32: 4, f32: 4, f16: 2 };
const SUFFIX: Record<string, ScalarType> = { i: "i32", u: "u32", f: "f32", h: "f16" };

/** Reads the layout of a uniform's type. Errors: ENOTSUP for a type that has no numbers to set. */
export function paramsLayout(type: TypeInfo, op = "kernel"): ParamsLayout {
  const members: ParamMember[] = [];
  if (type instanceof StructInfo) {
    addStruct(members, "", type, 0, op);
  } else {
    addMember(members, "params", type, 0, op);
  }
  return { bytes: type.size, typeName: type.getTypeName(), members };
}

function addStruct(members: ParamMember[], prefix: string, type: StructInfo, base: number, op: string): void {
  for (const member of type.members) {
    addMember(members, `${prefix}${member.name}`, member.type, base + member.offset, op);
  }
}

function addMember(members: ParamMember[], name: string, type: TypeInfo, offset: number, op: string): void {
  if (type instanceof StructInfo) {
    addStruct(members, `${name}.`, type, offset, op);
    return;
  }
  if (type instanceof ArrayInfo && type.format instanceof StructInfo) {
    for (let i = 0; i < type.count; i++) {
      addStruct(members, `${name}[${i}].`, type.format, offset + i * type.stride, op);
    }
    return;
  }
  const [element, elements, elementStride] =
    type instanceof ArrayInfo ? [type.format, type.count, type.stride] : [type, 1, 0];
  const shape = shapeOf(element.getTypeName());
  if (shape === undefined || elements < 1) {
    throw new KernelError(
      "ENOTSUP",
      op,
      `member ${name} of params has type ${type.getTypeName()}: use numbers, vectors, matrices, and arrays or structs of them`,
    );
  }
  const column = shape.rows * SCALAR_BYTES[shape.scalar];
  const size = (elements - 1) * elementStride + (shape.columns - 1) * shape.columnStride + column;
  members.push({ name, typeName: type.getTypeName(), offset, size, elements, elementStride, ...shape });
}

/** Understands `u32`, `vec3f`, `vec3<f32>`, `mat2x3h`, `mat2x3<f16>`. */
function shapeOf(typeName: string): Shape | undefined {
  if (typeName === "i32" || typeName === "u32" || typeName === "f32" || typeName === "f16") {
    return { scalar: typeName, rows: 1, columns: 1, columnStride: 0 };
  }
  const match = /^(?:vec([234])|mat([234])x([234]))(?:([iufh])|<\s*([iuf]32|f16)\s*>)$/.exec(typeName);
  if (match === null) {
    return undefined;
  }
  const [, vector, columns, rows, suffix, named] = match;
  const scalar = (named as ScalarType | undefined) ?? SUFFIX[suffix ?? ""];
  if (scalar === undefined) {
    return undefined;
  }
  const height = Number(vector ?? rows);
  // A column is aligned as its vector is: three rows take the room of four.
  const columnStride = (height === 2 ? 2 : 4) * SCALAR_BYTES[scalar];
  return {
    scalar,
    rows: height,
    columns: Number(columns ?? 1),
    columnStride: columns === undefined ? 0 : columnStride,
  };
}
