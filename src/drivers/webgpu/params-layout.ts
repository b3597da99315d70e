/** Where the members of the uniform `params` lie. */
import { KernelError } from "../../base/index.ts";
import { SCALAR_BYTES, type ScalarType, type StructType, type WgslType } from "./wgsl/layout.ts";

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

/** Reads the layout of a uniform's type. Errors: ENOTSUP for a type that has no numbers to set. */
export function paramsLayout(type: WgslType, op = "kernel"): ParamsLayout {
  const members: ParamMember[] = [];
  if (type.kind === "struct") {
    addStruct(members, "", type, 0, op);
  } else {
    addMember(members, "params", type, 0, op);
  }
  return { bytes: type.size, typeName: type.typeName, members };
}

function addStruct(members: ParamMember[], prefix: string, type: StructType, base: number, op: string): void {
  for (const member of type.members) {
    addMember(members, `${prefix}${member.name}`, member.type, base + member.offset, op);
  }
}

function addMember(members: ParamMember[], name: string, type: WgslType, offset: number, op: string): void {
  if (type.kind === "struct") {
    addStruct(members, `${name}.`, type, offset, op);
    return;
  }
  if (type.kind === "array" && type.element.kind === "struct") {
    for (let i = 0; i < (type.count ?? 0); i++) {
      addStruct(members, `${name}[${i}].`, type.element, offset + i * type.stride, op);
    }
    return;
  }
  const [element, elements, elementStride] =
    type.kind === "array" ? [type.element, type.count ?? 0, type.stride] : [type, 1, 0];
  if (element.kind !== "numbers" || elements < 1) {
    throw new KernelError(
      "ENOTSUP",
      op,
      `member ${name} of params has type ${type.typeName}: use numbers, vectors, matrices, and arrays or structs of them`,
    );
  }
  const { scalar, rows, columns } = element;
  const columnStride = columns > 1 ? element.align : 0;
  const column = rows * SCALAR_BYTES[scalar];
  const size = (elements - 1) * elementStride + (columns - 1) * columnStride + column;
  members.push({
    name,
    typeName: type.typeName,
    offset,
    size,
    elements,
    elementStride,
    scalar,
    rows,
    columns,
    columnStride,
  });
}
