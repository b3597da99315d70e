/** Types of WGSL values, as far as they can be found without a compiler: to keep values somewhere, their types must be named. */
import type { ExpressionElem, FunctionCallExpression, RefIdentElem, TypeRefElem } from "wesl";
import { evaluate } from "../wgsl/constants.ts";
import { tokensOf, UnreadableWgsl } from "../wgsl/tokens.ts";
import { SVM_FUNCTIONS } from "./functions.ts";
import { calledName, type ParsedKernel, svmName } from "./parse-kernel.ts";

/** `int` and `float` are the types of literals without a suffix. */
export type ScalarName = "u32" | "i32" | "f32" | "f16" | "bool" | "int" | "float";

/** The type of an expression, as far as a value of it can be kept and given back. */
export type WgslType =
  | { readonly kind: "scalar"; readonly name: ScalarName }
  | { readonly kind: "vector"; readonly size: number; readonly element: ScalarName }
  | { readonly kind: "matrix"; readonly columns: number; readonly rows: number; readonly element: ScalarName }
  | { readonly kind: "array"; readonly element: WgslType; readonly length: number }
  | { readonly kind: "struct"; readonly name: string; readonly members: readonly (readonly [string, WgslType])[] };

/** What an identifier of an expression is; undefined when it is not known. */
export type TypeOfName = (ref: RefIdentElem) => WgslType | undefined;

const scalar = (name: ScalarName): WgslType => ({ kind: "scalar", name });
const vector = (size: number, element: ScalarName): WgslType => ({ kind: "vector", size, element });

const SUFFIXES: Readonly<Record<string, ScalarName>> = { u: "u32", i: "i32", f: "f32", h: "f16" };

const OWN_STRUCTS: ReadonlyMap<string, WgslType> = new Map(
  [
    [
      "PmSpan",
      [
        ["addr", "u32"],
        ["words", "u32"],
        ["base", "u32"],
        ["entry", "u32"],
      ],
    ] as const,
    [
      "PmExchangeU32",
      [
        ["old_value", "u32"],
        ["exchanged", "bool"],
      ],
    ] as const,
    [
      "PmExchangeI32",
      [
        ["old_value", "i32"],
        ["exchanged", "bool"],
      ],
    ] as const,
  ].map(([name, members]) => [
    name,
    { kind: "struct", name, members: members.map(([member, type]) => [member, scalar(type)] as const) },
  ]),
);

/** Functions whose result has the type that their arguments have together. */
const ALIKE = new Set(
  `abs acos acosh asin asinh atan atan2 atanh ceil clamp cos cosh cross degrees exp exp2 floor fma fract inverseSqrt log
   log2 max min normalize pow quantizeToF16 radians reflect reverseBits round saturate sign sin sinh smoothstep sqrt step
   tan tanh trunc countOneBits countLeadingZeros countTrailingZeros firstLeadingBit firstTrailingBit faceForward`.split(
    /\s+/,
  ),
);
/** Those whose result has the type of the first argument, and of the first two. */
const LIKE_FIRST = new Set(["extractBits", "insertBits", "ldexp", "refract"]);
const LIKE_FIRST_TWO = new Set(["mix", "select"]);
const ELEMENT = new Set(["dot", "length", "distance", "determinant"]);
const FIXED: ReadonlyMap<string, WgslType> = new Map([
  ["all", scalar("bool")],
  ["any", scalar("bool")],
  ["arrayLength", scalar("u32")],
  ["dot4U8Packed", scalar("u32")],
  ["dot4I8Packed", scalar("i32")],
  ...["4x8snorm", "4x8unorm", "4xI8", "4xU8", "4xI8Clamp", "4xU8Clamp", "2x16snorm", "2x16unorm", "2x16float"].map(
    (form) => [`pack${form}`, scalar("u32")] as const,
  ),
  ["unpack4x8snorm", vector(4, "f32")],
  ["unpack4x8unorm", vector(4, "f32")],
  ["unpack4xI8", vector(4, "i32")],
  ["unpack4xU8", vector(4, "u32")],
  ["unpack2x16snorm", vector(2, "f32")],
  ["unpack2x16unorm", vector(2, "f32")],
  ["unpack2x16float", vector(2, "f32")],
]);

/** The type that a type expression names. */
export function namedType(kernel: ParsedKernel, type: ExpressionElem): WgslType | undefined {
  if (type.kind !== "type" && type.kind !== "ref") {
    return undefined;
  }
  const name = svmName(kernel, type.kind === "type" ? type.name.originalName : type.ident.originalName);
  const params = type.kind === "type" ? (type.templateParams ?? []) : [];
  return typeFrom(kernel, name, params);
}

function typeFrom(kernel: ParsedKernel, name: string, params: readonly ExpressionElem[]): WgslType | undefined {
  const own = OWN_STRUCTS.get(name);
  if (own !== undefined) {
    return own;
  }
  const struct = kernel.structs.get(name);
  if (struct !== undefined) {
    const members = struct.members.map((member) => [member.name.name, namedType(kernel, member.typeRef)] as const);
    return members.every((member): member is readonly [string, WgslType] => member[1] !== undefined)
      ? { kind: "struct", name, members }
      : undefined;
  }
  const alias = kernel.module.decls.find((decl) => decl.kind === "alias" && decl.name.ident.originalName === name);
  if (alias?.kind === "alias") {
    return namedType(kernel, alias.typeRef);
  }
  if (/^(u32|i32|f32|f16|bool)$/.test(name)) {
    return scalar(name as ScalarName);
  }
  if (name === "array") {
    const [of, count] = params;
    const element = of === undefined ? undefined : namedType(kernel, of);
    const length = count === undefined ? undefined : countOf(kernel, count);
    return element === undefined || length === undefined ? undefined : { kind: "array", element, length };
  }
  return shapedType(kernel, name, params);
}

/** Vectors and matrices. */
function shapedType(kernel: ParsedKernel, name: string, params: readonly ExpressionElem[]): WgslType | undefined {
  const shape = /^(?:vec([234])|mat([234])x([234]))([uifh]?)$/.exec(name);
  if (shape === null) {
    return undefined;
  }
  const [, size, columns, rows, suffix = ""] = shape;
  const given = params[0] === undefined ? undefined : namedType(kernel, params[0]);
  const element = SUFFIXES[suffix] ?? (given?.kind === "scalar" ? given.name : undefined);
  if (element === undefined) {
    return undefined;
  }
  return size !== undefined
    ? vector(Number(size), element)
    : { kind: "matrix", columns: Number(columns), rows: Number(rows), element };
}

/** How often an array has its element; undefined when that is not known. */
function countOf(kernel: ParsedKernel, count: ExpressionElem): number | undefined {
  const { source, module } = kernel;
  const phraseOf = (name: string) => {
    // A constant of a function may hide the module's, and no scope is known here.
    if (kernel.localNames.has(name)) {
      return undefined;
    }
    const decl = module.decls.find((d) => d.kind === "const" && d.name.decl.ident.originalName === name);
    return decl?.kind === "const" && decl.init !== undefined ? tokensOf(source.slice(decl.init)) : undefined;
  };
  try {
    return evaluate(tokensOf(source.slice(count)), phraseOf);
  } catch (error) {
    if (error instanceof UnreadableWgsl) {
      return undefined;
    }
    throw error;
  }
}

/** The type of an expression; of a literal without a suffix, an abstract one. */
export function typeOf(kernel: ParsedKernel, e: ExpressionElem, nameOf: TypeOfName): WgslType | undefined {
  switch (e.kind) {
    case "literal":
      return scalar(literalType(e.value));
    case "ref":
      return nameOf(e);
    case "parenthesized-expression":
      return typeOf(kernel, e.expression, nameOf);
    case "unary-expression":
      return e.operator.value === "&" || e.operator.value === "*" ? undefined : typeOf(kernel, e.expression, nameOf);
    case "binary-expression":
      return binaryType(e.operator.value, typeOf(kernel, e.left, nameOf), typeOf(kernel, e.right, nameOf));
    case "component-member-expression":
      return memberType(typeOf(kernel, e.base, nameOf), e.access.name);
    case "component-expression":
      return elementType(typeOf(kernel, e.base, nameOf));
    case "call-expression":
      return callType(kernel, e, nameOf);
    default:
      return undefined;
  }
}

/** What a variable becomes that is declared with a value of this type. */
export function concrete(type: WgslType | undefined): WgslType | undefined {
  const name = (element: ScalarName) => (element === "int" ? "i32" : element === "float" ? "f32" : element);
  switch (type?.kind) {
    case "scalar":
      return scalar(name(type.name));
    case "vector":
    case "matrix":
      return { ...type, element: name(type.element) };
    case "array": {
      const element = concrete(type.element);
      return element === undefined ? undefined : { ...type, element };
    }
    default:
      return type;
  }
}

function literalType(value: string): ScalarName {
  if (value === "true" || value === "false") {
    return "bool";
  }
  const hex = /^0x/i.test(value);
  const suffix = /[uih]$/.exec(value)?.[0] ?? (hex && !/p/i.test(value) ? undefined : /f$/.exec(value)?.[0]);
  return SUFFIXES[suffix ?? ""] ?? (/[.p]/i.test(value) || (!hex && /e/i.test(value)) ? "float" : "int");
}

function elementName(type: WgslType | undefined): ScalarName | undefined {
  return type?.kind === "scalar"
    ? type.name
    : type?.kind === "vector" || type?.kind === "matrix"
      ? type.element
      : undefined;
}

function together(a: ScalarName, b: ScalarName): ScalarName {
  return a === "int" || (a === "float" && b !== "int") ? b : a;
}

/** The type of values that meet in an operation: concrete before abstract, vectors before scalars. */
function join(a: WgslType | undefined, b: WgslType | undefined): WgslType | undefined {
  const [x, y] = [elementName(a), elementName(b)];
  if (a === undefined || b === undefined || x === undefined || y === undefined) {
    return a?.kind === b?.kind ? a : undefined;
  }
  const element = together(x, y);
  const wide = a.kind === "scalar" ? b : a;
  return wide.kind === "scalar"
    ? scalar(element)
    : wide.kind === "vector"
      ? vector(wide.size, element)
      : ({ ...wide, element } as WgslType);
}

function binaryType(op: string, a: WgslType | undefined, b: WgslType | undefined): WgslType | undefined {
  if (op === "&&" || op === "||") {
    return scalar("bool");
  }
  if (op === "<<" || op === ">>") {
    return a;
  }
  const joined = join(a, b);
  if (/^([=!]=|[<>]=?)$/.test(op)) {
    return joined?.kind === "vector" ? vector(joined.size, "bool") : scalar("bool");
  }
  return op === "*" ? (productType(a, b) ?? joined) : joined;
}

/** Where a matrix meets a vector or a matrix. */
function productType(a: WgslType | undefined, b: WgslType | undefined): WgslType | undefined {
  if (a?.kind === "matrix" && b?.kind === "vector") {
    return vector(a.rows, together(a.element, b.element));
  }
  if (a?.kind === "vector" && b?.kind === "matrix") {
    return vector(b.columns, together(a.element, b.element));
  }
  if (a?.kind === "matrix" && b?.kind === "matrix") {
    return { kind: "matrix", columns: b.columns, rows: a.rows, element: together(a.element, b.element) };
  }
  return undefined;
}

function memberType(base: WgslType | undefined, name: string): WgslType | undefined {
  if (base?.kind === "struct") {
    return base.members.find(([member]) => member === name)?.[1];
  }
  if (base?.kind === "vector") {
    return name.length === 1 ? scalar(base.element) : vector(name.length, base.element);
  }
  return undefined;
}

function elementType(base: WgslType | undefined): WgslType | undefined {
  switch (base?.kind) {
    case "vector":
      return scalar(base.element);
    case "matrix":
      return vector(base.rows, base.element);
    case "array":
      return base.element;
    default:
      return undefined;
  }
}

function callType(kernel: ParsedKernel, call: FunctionCallExpression, nameOf: TypeOfName): WgslType | undefined {
  const name = calledName(kernel, call);
  const svm = SVM_FUNCTIONS.get(name);
  if (svm !== undefined) {
    return svm.result === undefined ? undefined : typeFrom(kernel, svm.result, []);
  }
  const fn = kernel.functions.get(name);
  if (fn !== undefined) {
    return fn.returnType === undefined ? undefined : namedType(kernel, fn.returnType);
  }
  if (name === "bitcast") {
    const target = call.templateArgs?.[0] ?? templateOf(call.function);
    return target === undefined ? undefined : namedType(kernel, target);
  }
  const constructed = namedType(kernel, call.function);
  if (constructed !== undefined) {
    return constructed;
  }
  const args = call.arguments.map((arg) => typeOf(kernel, arg, nameOf));
  return inferredConstructor(name, args) ?? builtinType(name, args);
}

function templateOf(callee: RefIdentElem | TypeRefElem): ExpressionElem | undefined {
  return callee.kind === "type" ? callee.templateParams?.[0] : undefined;
}

/** `vec3(…)`, `mat2x2(…)` and `array(…)`: of what they are given. */
function inferredConstructor(name: string, args: readonly (WgslType | undefined)[]): WgslType | undefined {
  const whole = args.reduce((a, b) => join(a, b), args[0]);
  const element = elementName(whole);
  const shape = /^(?:vec([234])|mat([234])x([234]))$/.exec(name);
  if (shape !== null && element !== undefined) {
    const [, size, columns, rows] = shape;
    return size !== undefined
      ? vector(Number(size), element)
      : { kind: "matrix", columns: Number(columns), rows: Number(rows), element };
  }
  return name === "array" && whole !== undefined ? { kind: "array", element: whole, length: args.length } : undefined;
}

function builtinType(name: string, args: readonly (WgslType | undefined)[]): WgslType | undefined {
  const [a, b] = args;
  if (ALIKE.has(name)) {
    return args.reduce((x, y) => join(x, y), a);
  }
  if (LIKE_FIRST.has(name)) {
    return a;
  }
  if (LIKE_FIRST_TWO.has(name)) {
    return join(a, b);
  }
  if (ELEMENT.has(name)) {
    const element = elementName(join(a, b ?? a));
    return element === undefined ? undefined : scalar(element);
  }
  if (name === "transpose" && a?.kind === "matrix") {
    return { ...a, columns: a.rows, rows: a.columns };
  }
  return FIXED.get(name);
}

/** The type as WGSL. */
export function typeText(type: WgslType): string {
  switch (type.kind) {
    case "scalar":
      return type.name;
    case "vector":
      return `vec${type.size}<${type.element}>`;
    case "matrix":
      return `mat${type.columns}x${type.rows}<${type.element}>`;
    case "array":
      return `array<${typeText(type.element)}, ${type.length}>`;
    case "struct":
      return type.name;
    default:
      return type satisfies never;
  }
}
