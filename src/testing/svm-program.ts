/** Small kernels of svm mode made at random, as WGSL and as JavaScript that computes the same. */
import fc from "fast-check";

/** Words that each invocation owns; it loads and stores only there, and loads from memory that nobody stores to. */
export const OWN_WORDS = 64;

/** Registers of a program. */
const VARIABLES = 3;

export type Expression =
  | { readonly kind: "number"; readonly value: number }
  | { readonly kind: "variable"; readonly index: number }
  | { readonly kind: "id" }
  | {
      readonly kind: "binary";
      readonly op: "+" | "-" | "*" | "^" | "&" | "|";
      readonly a: Expression;
      readonly b: Expression;
    }
  | { readonly kind: "own"; readonly at: Expression }
  | { readonly kind: "shared"; readonly at: Expression }
  | { readonly kind: "vector"; readonly at: Expression }
  | { readonly kind: "span"; readonly at: Expression; readonly i: Expression }
  | { readonly kind: "helper"; readonly at: Expression };

export type Statement =
  | { readonly kind: "set"; readonly index: number; readonly value: Expression }
  | { readonly kind: "store"; readonly at: Expression; readonly value: Expression }
  | { readonly kind: "storeVector"; readonly at: Expression; readonly value: Expression }
  | { readonly kind: "add"; readonly bin: Expression; readonly value: Expression }
  | { readonly kind: "walk"; readonly index: number; readonly at: Expression; readonly turns: Expression }
  | { readonly kind: "bump"; readonly index: number; readonly value: Expression }
  | { readonly kind: "choose"; readonly value: Expression; readonly cases: readonly (readonly Statement[])[] }
  | {
      readonly kind: "if";
      readonly condition: Expression;
      readonly yes: readonly Statement[];
      readonly no: readonly Statement[];
    }
  | {
      readonly kind: "loop";
      readonly form: "for" | "while" | "loop";
      readonly turns: Expression;
      readonly body: readonly Statement[];
    }
  | { readonly kind: "leave"; readonly condition: Expression; readonly how: "break" | "continue" | "return" };

/** Where a program's memory lies, in words. */
export interface ProgramMemory {
  readonly own: number;
  readonly shared: number;
  /** A power of two. */
  readonly sharedWords: number;
  readonly bins: number;
  readonly binCount: number;
}

const index = fc.nat(VARIABLES - 1);

const { expression } = fc.letrec<{ expression: Expression }>((tie) => ({
  expression: fc.oneof(
    { maxDepth: 3, depthSize: "small" },
    fc.record({ kind: fc.constant("number" as const), value: fc.nat(200_000) }),
    fc.record({ kind: fc.constant("variable" as const), index }),
    fc.constant({ kind: "id" as const }),
    fc.record({
      kind: fc.constant("binary" as const),
      op: fc.constantFrom("+" as const, "-" as const, "*" as const, "^" as const, "&" as const, "|" as const),
      a: tie("expression"),
      b: tie("expression"),
    }),
    fc.record({
      kind: fc.constantFrom("own" as const, "shared" as const, "vector" as const, "helper" as const),
      at: tie("expression"),
    }),
    fc.record({ kind: fc.constant("span" as const), at: tie("expression"), i: tie("expression") }),
  ),
}));

const { block } = fc.letrec<{ block: Statement[]; statement: Statement }>((tie) => ({
  block: fc.array(tie("statement"), { minLength: 1, maxLength: 4 }),
  statement: fc.oneof(
    { maxDepth: 2, depthSize: "small" },
    fc.record({ kind: fc.constant("set" as const), index, value: expression }),
    fc.record({ kind: fc.constant("store" as const), at: expression, value: expression }),
    fc.record({ kind: fc.constant("storeVector" as const), at: expression, value: expression }),
    fc.record({ kind: fc.constant("add" as const), bin: expression, value: expression }),
    fc.record({ kind: fc.constant("walk" as const), index, at: expression, turns: expression }),
    fc.record({ kind: fc.constant("bump" as const), index, value: expression }),
    fc.record({
      kind: fc.constant("choose" as const),
      value: expression,
      cases: fc.array(tie("block"), { minLength: 2, maxLength: 2 }),
    }),
    fc.record({
      kind: fc.constant("leave" as const),
      condition: expression,
      how: fc.constantFrom("break" as const, "continue" as const, "return" as const),
    }),
    fc.record({ kind: fc.constant("if" as const), condition: expression, yes: tie("block"), no: tie("block") }),
    fc.record({
      kind: fc.constant("loop" as const),
      form: fc.constantFrom("for" as const, "while" as const, "loop" as const),
      turns: expression,
      body: tie("block"),
    }),
  ),
}));

/** A program's statements. */
export const program: fc.Arbitrary<Statement[]> = block;

/** The program as a kernel. `leave` statements outside a loop return. */
export function toWgsl(statements: readonly Statement[], memory: ProgramMemory): string {
  let loops = 0;
  const own = (at: string) => `(${memory.own}u + id.x * ${OWN_WORDS}u + (${at}) % ${OWN_WORDS}u)`;
  const ownVector = (at: string) => `(${memory.own}u + id.x * ${OWN_WORDS}u + (${at}) % ${OWN_WORDS - 3}u)`;
  const shared = (at: string, words: number) => `(${memory.shared}u + (${at}) % ${memory.sharedWords - words}u)`;
  const ex = (e: Expression): string => {
    switch (e.kind) {
      case "number":
        return `${e.value}u`;
      case "variable":
        return `v${e.index}`;
      case "id":
        return "id.x";
      case "binary":
        return `(${ex(e.a)} ${e.op} ${ex(e.b)})`;
      case "own":
        return `pm_load_u32(${own(ex(e.at))})`;
      case "shared":
        return `pm_load_u32(${shared(ex(e.at), 0)})`;
      case "vector":
        return `fold(pm_load_vec4u(${shared(ex(e.at), 3)}))`;
      case "span":
        return `within(${shared(ex(e.at), 8)}, ${ex(e.i)})`;
      case "helper":
        return `helper(${shared(ex(e.at), 2)})`;
      default:
        return e satisfies never;
    }
  };
  const all = (list: readonly Statement[], inLoop: boolean): string => list.map((s) => st(s, inLoop)).join("\n");
  const st = (s: Statement, inLoop: boolean): string => {
    switch (s.kind) {
      case "set":
        return `v${s.index} = ${ex(s.value)};`;
      case "store":
        return `pm_store_u32(${own(ex(s.at))}, ${ex(s.value)});`;
      case "storeVector":
        return `{ let x = ${ex(s.value)}; pm_store_vec4u(${ownVector(ex(s.at))}, vec4u(x, x + 1u, x * 3u, v0)); }`;
      case "add":
        return `pm_atomic_add_u32(${memory.bins}u + (${ex(s.bin)}) % ${memory.binCount}u, ${ex(s.value)});`;
      case "walk":
        return `v${s.index} = walk(${ex(s.at)}, (${ex(s.turns)}) % 9u);`;
      case "bump":
        return `bump(&v${s.index}, ${ex(s.value)});`;
      case "choose": {
        const cases = s.cases.map((list, i) => `case ${i}u: { ${all(list, inLoop)} }`);
        return `switch ((${ex(s.value)}) % 3u) { ${cases.join(" ")} default: { v0 += 7u; } }`;
      }
      case "if":
        return `if ((${ex(s.condition)}) % 2u == 1u) { ${all(s.yes, inLoop)} } else { ${all(s.no, inLoop)} }`;
      case "loop": {
        const n = `n${loops++}`;
        const turns = `(${ex(s.turns)}) % 7u`;
        const body = all(s.body, true);
        switch (s.form) {
          case "for":
            return `{ let t${n} = ${turns}; for (var ${n} = 0u; ${n} < t${n}; ${n}++) { ${body} } }`;
          case "while":
            return `{ var ${n} = ${turns}; while (${n} > 0u) { ${n}--; ${body} } }`;
          case "loop":
            return `{ var ${n} = ${turns}; loop { if (${n} == 0u) { break; } ${body} continuing { ${n}--; } } }`;
          default:
            return s.form satisfies never;
        }
      }
      case "leave":
        return `if ((${ex(s.condition)}) % 3u == 1u) { ${inLoop ? s.how : "return"}; }`;
      default:
        return s satisfies never;
    }
  };
  return `
fn fold(v: vec4u) -> u32 { return v.x ^ (v.y * 3u) ^ (v.z * 5u) ^ (v.w * 7u); }
fn within(a: u32, i: u32) -> u32 {
  let s = pm_span(a, 8u);
  return pm_span_load_u32(s, i % s.words);
}
fn helper(a: u32) -> u32 {
  loop {
    let x = pm_load_u32(a);
    if (x % 2u == 0u) { return x; }
    return x + pm_load_u32(a + 1u);
  }
}
struct Walk { sum: u32, way: vec2u, seen: array<u32, 3> }
fn walk(a: u32, turns: u32) -> u32 {
  var w = Walk(a, vec2u(turns, 1u), array(1u, 2u, 3u));
  for (var i = 0u; i < turns; i++) {
    let x = pm_load_u32(${shared("w.sum", 0)});
    w.seen[i % 3u] = x;
    w.sum += x + w.way.y;
    w.way = w.way.yx;
    if (x % 16u == 5u) { return w.sum; }
  }
  return w.sum ^ w.seen[0] ^ w.seen[2];
}
fn bump(v: ptr<function, u32>, x: u32) { *v = *v * 2u + x; }
@compute @workgroup_size(16)
fn main(@builtin(global_invocation_id) id: vec3u) {
  ${Array.from({ length: VARIABLES }, (_, i) => `var v${i} = ${i}u;`).join(" ")}
  ${all(statements, false)}
  pm_store_u32(${own("0u")}, v0 + v1 * 3u + v2 * 5u);
}`;
}

type Flow = "go" | "break" | "continue" | "return";

/** Runs one invocation of the program on `words`. Returns how many words it stored. */
export function runOnCpu(
  statements: readonly Statement[],
  memory: ProgramMemory,
  words: Uint32Array,
  id: number,
): number {
  let stores = 0;
  const v = new Uint32Array(VARIABLES).map((_, i) => i);
  const word = (at: number) => words[at] ?? 0;
  const base = memory.own + id * OWN_WORDS;
  const shared = (e: Expression, less: number) => memory.shared + (ex(e) % (memory.sharedWords - less));
  const ex = (e: Expression): number => {
    switch (e.kind) {
      case "number":
        return e.value;
      case "variable":
        return v[e.index] ?? 0;
      case "id":
        return id;
      case "binary":
        return binary(e.op, ex(e.a), ex(e.b));
      case "own":
        return word(base + (ex(e.at) % OWN_WORDS));
      case "shared":
        return word(shared(e.at, 0));
      case "vector": {
        const at = shared(e.at, 3);
        return (word(at) ^ Math.imul(word(at + 1), 3) ^ Math.imul(word(at + 2), 5) ^ Math.imul(word(at + 3), 7)) >>> 0;
      }
      case "span": {
        const at = shared(e.at, 8);
        const length = Math.min(8, 4096 - (at % 4096));
        return word(at + (ex(e.i) % length));
      }
      case "helper": {
        const at = shared(e.at, 2);
        return word(at) % 2 === 0 ? word(at) : (word(at) + word(at + 1)) >>> 0;
      }
      default:
        return e satisfies never;
    }
  };
  const store = (at: number, value: number) => {
    words[at] = value;
    stores++;
  };
  const walk = (a: number, turns: number): number => {
    let sum = a;
    let way = [turns, 1];
    const seen = [1, 2, 3];
    for (let i = 0; i < turns; i++) {
      const x = word(memory.shared + (sum % memory.sharedWords));
      seen[i % 3] = x;
      sum = (sum + x + (way[1] ?? 0)) >>> 0;
      way = [way[1] ?? 0, way[0] ?? 0];
      if (x % 16 === 5) {
        return sum;
      }
    }
    return (sum ^ (seen[0] ?? 0) ^ (seen[2] ?? 0)) >>> 0;
  };
  const block = (list: readonly Statement[], inLoop: boolean): Flow => {
    for (const s of list) {
      const flow = st(s, inLoop);
      if (flow !== "go") {
        return flow;
      }
    }
    return "go";
  };
  const st = (s: Statement, inLoop: boolean): Flow => {
    switch (s.kind) {
      case "set":
        v[s.index] = ex(s.value);
        return "go";
      case "store": {
        const at = base + (ex(s.at) % OWN_WORDS);
        store(at, ex(s.value));
        return "go";
      }
      case "storeVector": {
        const x = ex(s.value);
        const at = base + (ex(s.at) % (OWN_WORDS - 3));
        [x, x + 1, Math.imul(x, 3), v[0] ?? 0].forEach((value, k) => {
          store(at + k, value);
        });
        return "go";
      }
      case "add": {
        const at = memory.bins + (ex(s.bin) % memory.binCount);
        store(at, word(at) + ex(s.value));
        return "go";
      }
      case "walk":
        v[s.index] = walk(ex(s.at), ex(s.turns) % 9);
        return "go";
      case "bump":
        v[s.index] = Math.imul(v[s.index] ?? 0, 2) + ex(s.value);
        return "go";
      case "choose": {
        const list = s.cases[ex(s.value) % 3];
        if (list === undefined) {
          v[0] = (v[0] ?? 0) + 7;
          return "go";
        }
        const flow = block(list, inLoop);
        return flow === "break" ? "go" : flow;
      }
      case "if":
        return block(ex(s.condition) % 2 === 1 ? s.yes : s.no, inLoop);
      case "loop": {
        const turns = ex(s.turns) % 7;
        for (let n = 0; n < turns; n++) {
          const flow = block(s.body, true);
          if (flow === "return") {
            return flow;
          }
          if (flow === "break") {
            break;
          }
        }
        return "go";
      }
      case "leave":
        return ex(s.condition) % 3 === 1 ? (inLoop ? s.how : "return") : "go";
      default:
        return s satisfies never;
    }
  };
  if (block(statements, false) !== "return") {
    store(base, (v[0] ?? 0) + Math.imul(v[1] ?? 0, 3) + Math.imul(v[2] ?? 0, 5));
  }
  return stores;
}

function binary(op: "+" | "-" | "*" | "^" | "&" | "|", a: number, b: number): number {
  switch (op) {
    case "+":
      return (a + b) >>> 0;
    case "-":
      return (a - b) >>> 0;
    case "*":
      return Math.imul(a, b) >>> 0;
    case "^":
      return (a ^ b) >>> 0;
    case "&":
      return (a & b) >>> 0;
    case "|":
      return (a | b) >>> 0;
    default:
      return op satisfies never;
  }
}
