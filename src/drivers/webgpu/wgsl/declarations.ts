/**
 * The declarations of a WGSL module: what stands outside of functions, and which names each function mentions. The source
 * has been compiled before, so that it need not be checked, only read.
 */
import { type Token, tokensOf, UnreadableWgsl } from "./tokens.ts";

/** Tokens of an expression or a type, to be looked at when somebody needs them. */
export type Phrase = readonly Token[];

/** `@name(…)`, by name. */
export type Attributes = ReadonlyMap<string, readonly Phrase[]>;

/** `struct name { … }` */
export interface StructDeclaration {
  readonly name: string;
  readonly members: readonly { readonly name: string; readonly type: Phrase; readonly attributes: Attributes }[];
}

/** A `var` at module scope. */
export interface VariableDeclaration {
  readonly name: string;
  readonly attributes: Attributes;
  /** `storage`, `uniform`, …; undefined for textures and samplers. */
  readonly space: string | undefined;
  readonly access: string | undefined;
  readonly type: Phrase;
}

/** `fn name(…) { … }` */
export interface FunctionDeclaration {
  readonly name: string;
  readonly attributes: Attributes;
  /** Names in the body; members after a dot are not names of variables. */
  readonly mentions: ReadonlySet<string>;
}

/** A module, by what its names are. */
export interface Declarations {
  readonly structs: ReadonlyMap<string, StructDeclaration>;
  readonly aliases: ReadonlyMap<string, Phrase>;
  /** Values of `const` and `override`. */
  readonly values: ReadonlyMap<string, Phrase>;
  /** Overrides without a value. */
  readonly unset: ReadonlySet<string>;
  readonly variables: readonly VariableDeclaration[];
  readonly functions: ReadonlyMap<string, FunctionDeclaration>;
}

/** Reads a module. @throws UnreadableWgsl */
export function readDeclarations(wgsl: string): Declarations {
  return new Reader(tokensOf(wgsl)).module();
}

const CLOSING: Readonly<Record<string, string>> = { "(": ")", "[": "]", "{": "}", "<": ">" };

class Reader {
  readonly #tokens: readonly Token[];
  #at = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  module(): Declarations {
    const structs = new Map<string, StructDeclaration>();
    const aliases = new Map<string, Phrase>();
    const values = new Map<string, Phrase>();
    const unset = new Set<string>();
    const variables: VariableDeclaration[] = [];
    const functions = new Map<string, FunctionDeclaration>();
    while (this.#at < this.#tokens.length) {
      const attributes = this.#attributes();
      switch (this.#next()) {
        case ";":
          break;
        case "struct": {
          const struct = this.#struct();
          structs.set(struct.name, struct);
          break;
        }
        case "alias": {
          const name = this.#name();
          this.#take("=");
          aliases.set(name, this.#until(";"));
          break;
        }
        case "const":
        case "override": {
          const name = this.#name();
          const value = this.#value();
          if (value === undefined) {
            unset.add(name);
          } else {
            values.set(name, value);
          }
          break;
        }
        case "var":
          variables.push(this.#variable(attributes));
          break;
        case "fn": {
          const fn = this.#function(attributes);
          functions.set(fn.name, fn);
          break;
        }
        default:
          // enable, requires, diagnostic, const_assert: they declare nothing.
          this.#until(";");
      }
    }
    return { structs, aliases, values, unset, variables, functions };
  }

  #peek(): string {
    return this.#tokens[this.#at]?.text ?? "";
  }

  #next(): string {
    const token = this.#tokens[this.#at++];
    if (token === undefined) {
      throw new UnreadableWgsl("it ends in the middle of a declaration");
    }
    return token.text;
  }

  #take(text: string): void {
    const found = this.#next();
    if (found !== text) {
      throw new UnreadableWgsl(`"${found}" stands where "${text}" was expected`);
    }
  }

  #name(): string {
    const token = this.#tokens[this.#at];
    const text = this.#next();
    if (token?.kind !== "name") {
      throw new UnreadableWgsl(`"${text}" stands where a name was expected`);
    }
    return text;
  }

  #attributes(): Attributes {
    const attributes = new Map<string, readonly Phrase[]>();
    while (this.#peek() === "@") {
      this.#at++;
      attributes.set(this.#name(), this.#peek() === "(" ? this.#list() : []);
    }
    return attributes;
  }

  /** The parts of a list in brackets, which begins here. */
  #list(): Phrase[] {
    const close = CLOSING[this.#next()] ?? "";
    const parts: Phrase[] = [];
    while (this.#peek() !== close) {
      parts.push(this.#phrase([",", close]));
      if (this.#peek() === ",") {
        this.#at++;
      }
    }
    this.#at++;
    return parts;
  }

  /** Up to one of `ends` outside of all brackets, which is not taken. `<` opens a list only in types. */
  #phrase(ends: readonly string[]): Phrase {
    const from = this.#at;
    const open: string[] = [];
    for (;;) {
      const text = this.#peek();
      if (open.length === 0 && ends.includes(text)) {
        return this.#tokens.slice(from, this.#at);
      }
      this.#next();
      if (text === open.at(-1)) {
        open.pop();
      } else if (text === "(" || text === "[" || text === "{") {
        open.push(CLOSING[text] ?? "");
      } else if (text === "<" && (ends.includes(">") || open.at(-1) === ">" || this.#opensTemplate())) {
        open.push(">");
      }
    }
  }

  /** Whether the `<` that was just taken comes after a type's name: `array<`, `vec4<`. */
  #opensTemplate(): boolean {
    const before = this.#tokens[this.#at - 2]?.text ?? "";
    return /^(?:array|vec[234]|mat[234]x[234]|atomic|ptr|texture_\w+)$/.test(before);
  }

  /** Up to the sign that ends a declaration, which is taken. */
  #until(end: string): Phrase {
    const phrase = this.#phrase([end]);
    this.#at++;
    return phrase;
  }

  /** `: type = value;` or a part of it. */
  #value(): Phrase | undefined {
    if (this.#peek() === ":") {
      this.#at++;
      this.#phrase(["=", ";"]);
    }
    if (this.#next() === ";") {
      return undefined;
    }
    return this.#until(";");
  }

  #struct(): StructDeclaration {
    const name = this.#name();
    this.#take("{");
    const members: StructDeclaration["members"][number][] = [];
    while (this.#peek() !== "}") {
      const attributes = this.#attributes();
      const member = this.#name();
      this.#take(":");
      members.push({ name: member, type: this.#phrase([",", "}"]), attributes });
      if (this.#peek() === ",") {
        this.#at++;
      }
    }
    this.#at++;
    return { name, members };
  }

  #variable(attributes: Attributes): VariableDeclaration {
    const [space, access] = this.#peek() === "<" ? this.#list().map((part) => part[0]?.text) : [];
    const name = this.#name();
    let type: Phrase = [];
    if (this.#peek() === ":") {
      this.#at++;
      type = this.#phrase(["=", ";"]);
    }
    this.#until(";");
    return { name, attributes, space, access, type };
  }

  #function(attributes: Attributes): FunctionDeclaration {
    const name = this.#name();
    this.#phrase(["{"]);
    const from = this.#at;
    for (let depth = 0; depth > 0 || this.#at === from; ) {
      const text = this.#next();
      depth += text === "{" ? 1 : text === "}" ? -1 : 0;
    }
    const body = this.#tokens.slice(from, this.#at);
    const mentions = body.filter((token, i) => token.kind === "name" && body[i - 1]?.text !== ".");
    return { name, attributes, mentions: new Set(mentions.map((token) => token.text)) };
  }
}

/** The names that a function mentions, itself or through functions that it may call. */
export function reachableNames({ functions }: Declarations, entryPoint: string): ReadonlySet<string> {
  const reached = new Set<string>();
  const waiting = [entryPoint];
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    for (const mentioned of functions.get(name)?.mentions ?? []) {
      if (!reached.has(mentioned)) {
        reached.add(mentioned);
        waiting.push(mentioned);
      }
    }
  }
  return reached;
}
