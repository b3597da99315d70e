/** The command line's arguments for mappings, outputs and workgroups. */
import { UsageError } from "./errors.ts";
import { parseSize } from "./size.ts";

/** How a file is mapped: read-only, a private copy, or written back when the run succeeds. */
export type MapMode = "r" | "cow" | "rw";

/** Where the bytes of a mapping come from. */
export type MapSource =
  | { readonly kind: "file"; readonly path: string; readonly mode: MapMode }
  | { readonly kind: "url"; readonly url: string }
  | { readonly kind: "new"; readonly size: number };

/** One `--map`. */
export interface MapSpec {
  readonly name: string;
  readonly source: MapSource;
}

/** One `--out`. */
export interface OutSpec {
  readonly name: string;
  readonly path: string;
}

/** A name that WGSL can have. */
export const IDENTIFIER = /^(?!__)(?!_$)[\p{XID_Start}_]\p{XID_Continue}*$/u;

/** Splits `NAME=VALUE`; `form` is for the error. @throws UsageError */
export function splitNamed(
  option: string,
  text: string,
  form: string,
  isName = (name: string) => IDENTIFIER.test(name),
): [name: string, value: string] {
  const at = text.indexOf("=");
  const name = text.slice(0, at);
  const value = text.slice(at + 1);
  if (at < 0 || value === "") {
    throw new UsageError(`${option} "${text}": write it as ${form}`);
  }
  if (!isName(name)) {
    throw new UsageError(`${option} "${text}": "${name}" cannot be a WGSL name: write it as ${form}`);
  }
  return [name, value];
}

/** Returns the specs. @throws UsageError when two have one name */
export function refuseTwice<T extends { readonly name: string }>(option: string, specs: readonly T[]): readonly T[] {
  const seen = new Set<string>();
  for (const { name } of specs) {
    if (seen.has(name)) {
      throw new UsageError(`${option} names ${name} twice: give each name once`);
    }
    seen.add(name);
  }
  return specs;
}

function parseSource(name: string, value: string): MapSource {
  if (/^https?:\/\//i.test(value)) {
    return { kind: "url", url: value };
  }
  if (value.startsWith("new:")) {
    return { kind: "new", size: parseSize(value.slice(4), `--map ${name}=${value}`) };
  }
  const match = /^(.+):(r|cow|rw)$/s.exec(value);
  const path = match?.[1] ?? value;
  return { kind: "file", path, mode: (match?.[2] ?? "r") as MapMode };
}

/**
 * Parses the `--map` arguments: `NAME=PATH[:r|cow|rw]`, `NAME=http(s)://...` or `NAME=new:SIZE`. A path that itself
 * ends in `:rw` and the like takes a mode after it; one that begins like a URL takes `./` before it.
 * @throws UsageError for a wrong form, a name that WGSL cannot have, a name given twice
 */
export function parseMaps(texts: readonly string[]): readonly MapSpec[] {
  const specs = texts.map((text): MapSpec => {
    const [name, value] = splitNamed("--map", text, "NAME=PATH[:r|cow|rw], NAME=URL or NAME=new:SIZE");
    return { name, source: parseSource(name, value) };
  });
  return refuseTwice("--map", specs);
}

/** Parses the `--out` arguments, `NAME=PATH`. @throws UsageError as {@link parseMaps} does. */
export function parseOuts(texts: readonly string[]): readonly OutSpec[] {
  const specs = texts.map((text): OutSpec => {
    const [name, path] = splitNamed("--out", text, "NAME=PATH");
    return { name, path };
  });
  return refuseTwice("--out", specs);
}

/** Parses `--workgroups X[,Y[,Z]]`. @throws UsageError unless it is one to three whole numbers above 0. */
export function parseWorkgroups(text: string): [number, number, number] {
  const parts = text.split(",");
  const counts = parts.map(Number);
  if (parts.length > 3 || parts.some((part) => !/^\d+$/.test(part)) || counts.some((n) => n < 1)) {
    const why = `--workgroups "${text}": each count is a whole number from 1 up: write it as X, X,Y or X,Y,Z`;
    throw new UsageError(why);
  }
  const [x = 1, y = 1, z = 1] = counts;
  return [x, y, z];
}
