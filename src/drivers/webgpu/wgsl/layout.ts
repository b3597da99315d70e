/** Sizes, alignments and offsets of WGSL types in buffers. */
import { evaluate } from "./constants.ts";
import type { Attributes, Declarations, Phrase, StructDeclaration } from "./declarations.ts";
import { UnreadableWgsl } from "./tokens.ts";

/** What a vector's or a matrix's numbers are. */
export type ScalarType = "i32" | "u32" | "f32" | "f16";

interface Sized {
  /** As the source has it, with aliases looked up. */
  readonly typeName: string;
  readonly align: number;
  /** Of a runtime-sized array or a struct that ends in one: without it. */
  readonly size: number;
}

/** A scalar (one row, one column), a vector (one column) or a matrix. */
export interface NumbersType extends Sized {
  readonly kind: "numbers";
  readonly scalar: ScalarType;
  readonly rows: number;
  readonly columns: number;
}

/** `array<element, count>` */
export interface ArrayType extends Sized {
  readonly kind: "array";
  readonly element: WgslType;
  readonly stride: number;
  /** Undefined when it is runtime-sized. */
  readonly count: number | undefined;
}

/** A struct, with the places of its members. */
export interface StructType extends Sized {
  readonly kind: "struct";
  readonly members: readonly { readonly name: string; readonly offset: number; readonly type: WgslType }[];
}

/** A type that holds no number that somebody could set: atomics. */
export interface OpaqueType extends Sized {
  readonly kind: "opaque";
}

/** A type with its layout in memory. */
export type WgslType = NumbersType | ArrayType | StructType | OpaqueType;

/** Bytes of each. */
export const SCALAR_BYTES: Readonly<Record<ScalarType, number>> = { i32: 4, u32: 4, f32: 4, f16: 2 };
const SUFFIX: Readonly<Record<string, ScalarType>> = { i: "i32", u: "u32", f: "f32", h: "f16" };

const alignUp = (offset: number, align: number): number => Math.ceil(offset / align) * align;

/** The types and values of one module. */
export class Layouts {
  readonly #module: Declarations;

  constructor(module: Declarations) {
    this.#module = module;
  }

  /** The value of a constant expression. @throws UnreadableWgsl */
  value(phrase: Phrase): number {
    return evaluate(phrase, (name) => this.#module.values.get(name));
  }

  /** How a type is written, with aliases looked up: for messages. */
  nameOf(phrase: Phrase): string {
    const resolved = this.#resolve(phrase);
    const text = resolved.map((token) => token.text).join("");
    return text.replaceAll(",", ", ");
  }

  /** @throws UnreadableWgsl a type that no buffer holds */
  typeOf(phrase: Phrase): WgslType {
    const resolved = this.#resolve(phrase);
    const [head] = resolved;
    const name = head?.text ?? "";
    const struct = this.#module.structs.get(name);
    if (struct !== undefined) {
      return this.#struct(struct);
    }
    const args = argumentsOf(resolved);
    const typeName = this.nameOf(resolved);
    if (name === "array") {
      return this.#array(args, typeName);
    }
    if (name === "atomic") {
      return { kind: "opaque", typeName, align: 4, size: 4 };
    }
    const numbers = this.#numbers(name, args, typeName);
    if (numbers === undefined) {
      throw new UnreadableWgsl(`the type ${typeName} has no known layout`);
    }
    return numbers;
  }

  #resolve(phrase: Phrase): Phrase {
    const alias = phrase.length === 1 ? this.#module.aliases.get(phrase[0]?.text ?? "") : undefined;
    return alias === undefined ? phrase : this.#resolve(alias);
  }

  #numbers(name: string, args: readonly Phrase[], typeName: string): NumbersType | undefined {
    if (Object.hasOwn(SCALAR_BYTES, name)) {
      const scalar = name as ScalarType;
      const bytes = SCALAR_BYTES[scalar];
      return { kind: "numbers", typeName, align: bytes, size: bytes, scalar, rows: 1, columns: 1 };
    }
    const match = /^(?:vec([234])|mat([234])x([234]))([iufh]?)$/.exec(name);
    const [, vector, wide, tall, suffix = ""] = match ?? [];
    const inner = args[0] === undefined ? suffix : this.nameOf(args[0]);
    const scalar = SUFFIX[inner] ?? (Object.hasOwn(SCALAR_BYTES, inner) ? (inner as ScalarType) : undefined);
    if (match === null || scalar === undefined) {
      return undefined;
    }
    const rows = Number(vector ?? tall);
    const columns = Number(wide ?? 1);
    // A column is aligned as its vector is: three rows take the room of four.
    const align = (rows === 2 ? 2 : 4) * SCALAR_BYTES[scalar];
    const size = wide === undefined ? rows * SCALAR_BYTES[scalar] : columns * align;
    return { kind: "numbers", typeName, align, size, scalar, rows, columns };
  }

  #array(args: readonly Phrase[], typeName: string): ArrayType {
    const [of = [], size] = args;
    const element = this.typeOf(of);
    const stride = alignUp(element.size, element.align);
    const count = size === undefined ? undefined : this.value(size);
    return { kind: "array", typeName, align: element.align, size: stride * (count ?? 0), element, stride, count };
  }

  #struct({ name, members }: StructDeclaration): StructType {
    let end = 0;
    let align = 1;
    const placed = members.map((member) => {
      const type = this.typeOf(member.type);
      const memberAlign = this.#attribute(member.attributes, "align") ?? type.align;
      const offset = alignUp(end, memberAlign);
      end = offset + (this.#attribute(member.attributes, "size") ?? type.size);
      align = Math.max(align, memberAlign);
      return { name: member.name, offset, type };
    });
    return { kind: "struct", typeName: name, align, size: alignUp(end, align), members: placed };
  }

  #attribute(attributes: Attributes, name: string): number | undefined {
    const [phrase] = attributes.get(name) ?? [];
    return phrase && this.value(phrase);
  }
}

/** The parts of `name<…>` between the outermost commas. */
function argumentsOf(phrase: Phrase): Phrase[] {
  if (phrase[1]?.text !== "<") {
    return [];
  }
  const parts: Phrase[] = [];
  let angles = 0;
  let parentheses = 0;
  let from = 2;
  for (let i = 2; i < phrase.length; i++) {
    const text = phrase[i]?.text ?? "";
    const isLast = i === phrase.length - 1;
    if (angles === 0 && parentheses === 0 && (text === "," || isLast)) {
      if (i > from) {
        parts.push(phrase.slice(from, i));
      }
      from = i + 1;
    } else if (text === "(" || text === ")") {
      parentheses += text === "(" ? 1 : -1;
    } else if (parentheses === 0 && (text === "<" || text === ">")) {
      // Within parentheses they compare and shift.
      angles += text === "<" ? 1 : -1;
    }
  }
  return parts;
}
