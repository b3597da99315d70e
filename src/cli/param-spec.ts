/** The `--set` arguments: what fills the uniform `params`. */
import { KernelError } from "../base/index.ts";
import { UsageError } from "./errors.ts";
import { IDENTIFIER, refuseTwice, splitNamed } from "./map-spec.ts";

/** `@NAME`, the svm address of a mapping, or `#NAME`, its length in bytes. */
export interface MappingValue {
  readonly kind: "address" | "length";
  readonly mapping: string;
}

/** One `--set`: a number or a mapping's value for each component. */
export interface ParamSpec {
  readonly name: string;
  readonly parts: readonly (number | MappingValue)[];
}

/** Member names of `params` with a number, or one number a component. */
export type Params = Record<string, number | number[]>;

const NUMBER = /^[+-]?(?:0[xX][\da-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)$/;
/** A member of `params`, of a struct in it (`camera.eye`), or of one of several (`lights[2].at`). */
const isMember = (name: string) => name.split(".").every((part) => IDENTIFIER.test(part.replace(/(?<=.)\[\d+\]$/, "")));
const FORM = "NAME=NUMBER, NAME=@MAPPING, NAME=#MAPPING or NAME=VALUE,VALUE,...";
/** What a u32 holds. */
const MOST = 2 ** 32 - 1;

/**
 * Parses the `--set` arguments: `NAME=VALUE` or `NAME=VALUE,VALUE…` for a vector, each value a number, `@MAPPING` or
 * `#MAPPING`.
 * @throws UsageError for a wrong form, a value that is no number, a name given twice
 */
export function parseParams(texts: readonly string[]): readonly ParamSpec[] {
  const specs = texts.map((text): ParamSpec => {
    const [name, value] = splitNamed("--set", text, FORM, isMember);
    return { name, parts: value.split(",").map((part) => parsePart(part, name, text)) };
  });
  return refuseTwice("--set", specs);
}

function parsePart(part: string, name: string, text: string): number | MappingValue {
  const mark = part[0];
  if (mark === "@" || mark === "#") {
    if (part.length === 1) {
      throw new UsageError(
        `--set "${text}": ${mark} stands before the name of a mapping: write it as ${name}=${mark}MAPPING`,
      );
    }
    return { kind: mark === "@" ? "address" : "length", mapping: part.slice(1) };
  }
  if (!NUMBER.test(part)) {
    throw new UsageError(`--set "${text}": "${part}" is not a number: write it as ${name}=1.5 or ${name}=1,2,3`);
  }
  return /^[+-]?0x/i.test(part) ? parseHex(part) : Number(part);
}

function parseHex(text: string): number {
  return text.startsWith("-") ? -Number(text.slice(1)) : Number(text.replace(/^\+/, ""));
}

/** The mappings' values that the arguments name, with the `--set` that names each. */
export function mappingValues(specs: readonly ParamSpec[]): { readonly name: string; readonly value: MappingValue }[] {
  return specs.flatMap(({ name, parts }) =>
    parts.flatMap((value) => (typeof value === "number" ? [] : [{ name, value }])),
  );
}

/**
 * The numbers that the arguments stand for.
 * @throws KernelError EINVAL for a length that no u32 holds; what `addressOf` throws
 */
export function resolveParams(
  specs: readonly ParamSpec[],
  mappings: { addressOf(mapping: string): number; lengthOf(mapping: string): number },
): Params {
  const numberOf = (name: string, part: number | MappingValue): number => {
    if (typeof part === "number") {
      return part;
    }
    if (part.kind === "address") {
      return mappings.addressOf(part.mapping);
    }
    const length = mappings.lengthOf(part.mapping);
    if (length > MOST) {
      const why = `${part.mapping} has ${length} bytes, more than the ${MOST} that a u32 holds: give the kernel a number of larger units, ${name}=NUMBER`;
      throw new KernelError("EINVAL", `set ${name}`, why);
    }
    return length;
  };
  return Object.fromEntries(
    specs.map(({ name, parts }) => {
      const numbers = parts.map((part) => numberOf(name, part));
      return [name, numbers.length === 1 ? Number(numbers[0]) : numbers];
    }),
  );
}
