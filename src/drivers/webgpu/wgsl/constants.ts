/** Values of constant expressions, as sizes and attributes have them. */
import type { Phrase } from "./declarations.ts";
import { UnreadableWgsl } from "./tokens.ts";

/** A number or a truth value, and how it is calculated with. */
interface Value {
  readonly n: number;
  readonly type: "int" | "u32" | "float";
}

/** What binds tighter comes later. */
const LEVELS: readonly (readonly string[])[] = [
  ["||"],
  ["&&"],
  ["|"],
  ["^"],
  ["&"],
  ["==", "!="],
  ["<", ">", "<=", ">="],
  ["<<", ">>"],
  ["+", "-"],
  ["*", "/", "%"],
];

const MATH: Readonly<Record<string, (...numbers: number[]) => number>> = {
  max: Math.max,
  min: Math.min,
  abs: Math.abs,
  ceil: Math.ceil,
  floor: Math.floor,
  clamp: (x, low, high) => Math.min(Math.max(x, low), high),
  select: (no, yes, which) => (which ? yes : no),
};

/**
 * The value of an expression, where `lookUp` gives those of names.
 * @throws UnreadableWgsl for what sizes are not made of: vectors, calls of most functions, overrides without a value
 */
export function evaluate(phrase: Phrase, lookUp: (name: string) => Phrase | undefined): number {
  return new Evaluator(phrase, lookUp).whole().n;
}

class Evaluator {
  readonly #phrase: Phrase;
  readonly #lookUp: (name: string) => Phrase | undefined;
  #at = 0;

  constructor(phrase: Phrase, lookUp: (name: string) => Phrase | undefined) {
    this.#phrase = phrase;
    this.#lookUp = lookUp;
  }

  whole(): Value {
    const value = this.#level(0);
    if (this.#at < this.#phrase.length) {
      throw this.#unreadable();
    }
    return value;
  }

  #unreadable(): UnreadableWgsl {
    return new UnreadableWgsl(`the value of "${this.#phrase.map((token) => token.text).join(" ")}" is not known`);
  }

  /** The sign here: two neighbouring `>`, or `>` and `=`, are one. */
  #operator(): string {
    const token = this.#phrase[this.#at];
    const next = this.#phrase[this.#at + 1];
    if (token?.text === ">" && next?.at === token.at + 1 && (next.text === ">" || next.text === "=")) {
      return `>${next.text}`;
    }
    return token?.text ?? "";
  }

  #level(level: number): Value {
    const operators = LEVELS[level];
    if (operators === undefined) {
      return this.#unary();
    }
    let left = this.#level(level + 1);
    for (let operator = this.#operator(); operators.includes(operator); operator = this.#operator()) {
      this.#at += operator === ">>" || operator === ">=" ? 2 : 1;
      left = apply(operator, left, this.#level(level + 1));
    }
    return left;
  }

  #unary(): Value {
    const token = this.#phrase[this.#at++];
    if (token === undefined) {
      throw this.#unreadable();
    }
    if (token.kind === "number") {
      return literal(token.text);
    }
    if (token.kind === "name") {
      return this.#phrase[this.#at]?.text === "(" ? this.#call(token.text) : this.#named(token.text);
    }
    switch (token.text) {
      case "(": {
        const value = this.#level(0);
        this.#at++;
        return value;
      }
      case "-": {
        const { n, type } = this.#unary();
        return { n: -n, type };
      }
      case "~": {
        const { n, type } = this.#unary();
        return { n: type === "u32" ? ~n >>> 0 : ~n, type };
      }
      case "!":
        return { n: this.#unary().n === 0 ? 1 : 0, type: "int" };
      default:
        throw this.#unreadable();
    }
  }

  #named(name: string): Value {
    if (name === "true" || name === "false") {
      return { n: name === "true" ? 1 : 0, type: "int" };
    }
    const phrase = this.#lookUp(name);
    if (phrase === undefined) {
      throw new UnreadableWgsl(`"${name}" has no value`);
    }
    return new Evaluator(phrase, this.#lookUp).whole();
  }

  #call(name: string): Value {
    const args: Value[] = [];
    this.#at++;
    while (this.#phrase[this.#at]?.text !== ")") {
      args.push(this.#level(0));
      if (this.#phrase[this.#at]?.text === ",") {
        this.#at++;
      }
    }
    this.#at++;
    const [first = { n: 0, type: "int" }] = args;
    switch (name) {
      case "u32":
        return { n: Math.trunc(first.n) >>> 0, type: "u32" };
      case "i32":
        return { n: Math.trunc(first.n) | 0, type: "int" };
      case "f32":
      case "f16":
        return { n: first.n, type: "float" };
      case "bool":
        return { n: first.n === 0 ? 0 : 1, type: "int" };
    }
    const calculate = Object.hasOwn(MATH, name) ? MATH[name] : undefined;
    if (calculate === undefined) {
      throw this.#unreadable();
    }
    return { n: calculate(...args.map((arg) => arg.n)), type: args.map((arg) => arg.type).reduce(common, "int") };
  }
}

function literal(text: string): Value {
  const digits = text.replace(/^(0[xX][\da-fA-F]+|[^iufh]*)[iufh]?$/, "$1");
  const isFloat = !/^0[xX]/.test(text) && /[.eEfh]/.test(text);
  return { n: Number(digits), type: isFloat ? "float" : text.endsWith("u") ? "u32" : "int" };
}

function common(a: Value["type"], b: Value["type"]): Value["type"] {
  return a === "float" || b === "float" ? "float" : a === "u32" || b === "u32" ? "u32" : "int";
}

function apply(operator: string, left: Value, right: Value): Value {
  const type = common(left.type, right.type);
  const n = calculate(operator, left.n, right.n, type);
  return typeof n === "boolean" ? { n: n ? 1 : 0, type: "int" } : { n: type === "u32" ? n >>> 0 : n, type };
}

function calculate(operator: string, a: number, b: number, type: Value["type"]): number | boolean {
  switch (operator) {
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      return a * b;
    case "/":
      return type === "float" ? a / b : Math.trunc(a / b);
    case "%":
      return a % b;
    case "<<":
      return a * 2 ** b;
    case ">>":
      return Math.floor(a / 2 ** b);
    case "&":
      return a & b;
    case "|":
      return a | b;
    case "^":
      return a ^ b;
    case "<":
      return a < b;
    case ">":
      return a > b;
    case "<=":
      return a <= b;
    case ">=":
      return a >= b;
    case "==":
      return a === b;
    case "!=":
      return a !== b;
    case "&&":
      return a !== 0 && b !== 0;
    default:
      return a !== 0 || b !== 0;
  }
}
