/** Small kernels of svm mode made at random; svm-program-wgsl.ts writes them, svm-program-cpu.ts computes what they do. */
import fc from "fast-check";

/** Words that each invocation owns; it loads and stores only there, and loads from memory that nobody stores to. */
export const OWN_WORDS = 64;

/** Registers of a program. */
export const VARIABLES = 3;

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
  /** An atomic on a word of its own, whose result is used. */
  | {
      readonly kind: "take";
      readonly index: number;
      readonly op: "add" | "exchange" | "max" | "compare_exchange";
      readonly at: Expression;
      readonly value: Expression;
    }
  /** A loop that ends when memory is there. */
  | { readonly kind: "spin"; readonly at: Expression }
  /** Only outside all else: with another invocation of the workgroup, between barriers. */
  | {
      readonly kind: "exchange";
      readonly index: number;
      readonly by: number;
      /** Its register; a word that it owns; such a word, changed by an atomic whose result is used. */
      readonly how: "register" | "load" | "take";
    }
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

/** The grid that a program runs on. */
export interface ProgramShape {
  readonly workgroup: readonly [number, number, number];
  readonly grid: readonly [number, number, number];
}

/** Bit of all words that invocations only read: loops that wait for memory look at it. */
export const THERE = 0x8000_0000;

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
    fc.record({
      kind: fc.constant("take" as const),
      index,
      op: fc.constantFrom("add" as const, "exchange" as const, "max" as const, "compare_exchange" as const),
      at: expression,
      value: expression,
    }),
    fc.record({ kind: fc.constant("spin" as const), at: expression }),
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

const exchange: fc.Arbitrary<Statement> = fc.record({
  kind: fc.constant("exchange" as const),
  index,
  by: fc.integer({ min: 1, max: 15 }),
  how: fc.constantFrom("register" as const, "load" as const, "take" as const),
});

/** Of a program whose workgroups do something together. */
export const collectiveProgram: fc.Arbitrary<Statement[]> = fc
  .tuple(block, exchange, block, fc.option(exchange, { nil: undefined }))
  .map(([before, first, after, second]) => [...before, first, ...after, ...(second === undefined ? [] : [second])]);

const variable = fc.record({ kind: fc.constant("variable" as const), index });

/** A register becomes what it was and a word that may be missing. */
const miss: fc.Arbitrary<Statement> = fc.record({
  kind: fc.constant("set" as const),
  index,
  value: fc.record({
    kind: fc.constant("binary" as const),
    op: fc.constant("+" as const),
    a: variable,
    b: fc.record({ kind: fc.constant("shared" as const), at: variable }),
  }),
});

/** Of a program whose workgroups load words before and after they change them by atomics, and run again in between. */
export const orderedProgram: fc.Arbitrary<Statement[]> = fc
  .array(
    fc.oneof(
      { weight: 3, arbitrary: exchange },
      { weight: 2, arbitrary: miss },
      {
        weight: 1,
        arbitrary: fc.record({
          kind: fc.constant("take" as const),
          index,
          op: fc.constantFrom("add" as const, "exchange" as const, "max" as const, "compare_exchange" as const),
          at: variable,
          value: variable,
        }),
      },
    ),
    { minLength: 4, maxLength: 12 },
  )
  .filter((list) => list.some((s) => s.kind === "exchange" && s.how === "take"));

/** Words of its own that an invocation exchanges with others: few, so that all kinds of access meet on them. */
export const EXCHANGED = 2;

/** Words of its own that an invocation changes by atomics: where others load them, those, and none that it stores to before its end. */
export function takenWords(statements: readonly Statement[]): number {
  return statements.some((s) => s.kind === "exchange" && s.how !== "register") ? EXCHANGED : OWN_WORDS;
}

/** Whether its workgroups do something together. */
export function isCollective(statements: readonly Statement[]): boolean {
  return statements.some((s) => s.kind === "exchange");
}

/** Invocations of a workgroup, of whatever form it is. */
export const GROUP = 16;

/** One row of workgroups. */
export function rowOf(invocations: number): ProgramShape {
  return { workgroup: [GROUP, 1, 1], grid: [invocations / GROUP, 1, 1] };
}

/** How a statement ends. */
export type Flow = "go" | "break" | "continue" | "return";

/** How a `leave` statement leaves: where workgroups do something together nobody returns early. */
export function howToLeave(how: Exclude<Flow, "go">, inLoop: boolean, together: boolean): Exclude<Flow, "go"> {
  return inLoop ? (together && how === "return" ? "break" : how) : "return";
}
