/**
 * Writes the functions of a kernel once more so that a run can begin in the middle of them.
 *
 * What a function has declared when it comes to a place where it can be left lives in module-scope variables, which are kept
 * and brought back together. A run that goes on somewhere (`pm_skip`) passes over all statements on the way there:
 *
 *     var sum = 0u;                              if (!pm_skip) { pm_v1_sum = 0u; pm_v2_i = 0u; }
 *     for (var i = 0u; i < n; i++) {       →     for (; ; pm_v2_i++) {
 *       sum += pm_load_u32(list + i);              (the head: keep everything, or go on from here)
 *     }                                            if (!pm_skip) { if (!(pm_v2_i < n)) { break; } }
 *                                                  pm_v1_sum += pm_load_u32(list + pm_v2_i); }
 */
import type {
  ExpressionElem,
  FnElem,
  ForElem,
  FunctionCallExpression,
  IfElem,
  LetElem,
  LoopElem,
  Statement,
  VarElem,
  WhileElem,
} from "wesl";
import { concrete, namedType, typeOf, typeText, type WgslType } from "./infer-type.ts";
import { everything, type ParsedKernel, svmName } from "./parse-kernel.ts";
import { NotResumable, paramVariable, placeVariable, type ResumeContext, resumableName } from "./resume-names.ts";
import type { FunctionPlaces, PlacedCall, PlaceRange } from "./resume-points.ts";
import { type Binding, type FunctionScopes, rootOf } from "./resume-scopes.ts";
import { Edits } from "./source-text.ts";

/** The second text of a function. @throws NotResumable */
export function resumableText(context: ResumeContext, fn: FnElem, places: FunctionPlaces, isEntry: boolean): string {
  return new Writer(context, fn, places, isEntry).text();
}

class Writer {
  readonly #context: ResumeContext;
  readonly #kernel: ParsedKernel;
  readonly #fn: FnElem;
  readonly #isEntry: boolean;
  readonly #places: FunctionPlaces;
  readonly #scopes: FunctionScopes;
  readonly #at: string;
  readonly #leave: string;
  /** Calls that were made before their statements, and where their results are. */
  readonly #results = new Map<FunctionCallExpression, string>();
  /** Variables that pointers are made to: they stay the function's own, and are copied. */
  readonly #copies: { readonly home: string; readonly kept: string; readonly type: WgslType }[] = [];

  constructor(context: ResumeContext, fn: FnElem, places: FunctionPlaces, isEntry: boolean) {
    this.#context = context;
    this.#kernel = context.kernel;
    this.#fn = fn;
    this.#isEntry = isEntry;
    this.#places = places;
    this.#scopes = places.scopes;
    this.#at = placeVariable(fn);
    this.#leave = fn.returnType === undefined ? "return;" : `return ${this.#source(fn.returnType)}();`;
  }

  text(): string {
    const { kernel, kept } = this.#context;
    const fn = this.#fn;
    if (!this.#isEntry) {
      fn.params.forEach((param, i) => {
        const binding = this.#scopes.ofDeclaration.get(param);
        if (binding?.type !== undefined) {
          binding.home = paramVariable(fn, i);
          kept.push({ name: binding.home, type: binding.type, isLive: `${this.#at} != 0u` });
        }
      });
    }
    kept.push({ name: this.#at, type: { kind: "scalar", name: "u32" } });
    this.#findHomes(fn.body.body);
    const body = this.#statements(fn.body.body);
    const last = fn.body.body.at(-1);
    const end =
      fn.returnType === undefined || (last?.kind === "return" && !this.#places.ranges.has(last)) ? "" : this.#leave;
    const params = this.#isEntry
      ? fn.params.map(
          (p) =>
            `${p.name.decl.ident.originalName}: ${p.name.typeRef === undefined ? "" : kernel.source.slice(p.name.typeRef)}`,
        )
      : [];
    const result = fn.returnType === undefined ? "" : ` -> ${this.#source(fn.returnType)}`;
    const copies = this.#copies.map(({ home, type }) => `var ${home}: ${typeText(type)};`).join(" ");
    const back = this.#copies.map((copy) => `${copy.home} = ${copy.kept};`).join(" ");
    return `fn ${resumableName(fn)}(${params.join(", ")})${result} {
${copies}${back === "" ? "" : ` if (pm_skip) { ${back} }`}
${body}
${end}
}`;
  }

  /** Declarations that a place can lie behind get a home; loops' own variables, too. */
  #findHomes(list: readonly Statement[]): void {
    const last = list.findLastIndex((s) => this.#places.ranges.has(s));
    list.forEach((s, i) => {
      if (i <= last && (s.kind === "var" || s.kind === "let")) {
        this.#giveHome(s, this.#rangeOf(list.slice(i + 1)));
      }
      if (!this.#places.ranges.has(s)) {
        return;
      }
      if (s.kind === "for" && (s.init?.kind === "var" || s.init?.kind === "let")) {
        this.#giveHome(s.init, this.#rangeOf([s]));
      }
      for (const block of blocksOf(s)) {
        this.#findHomes(block);
      }
    });
  }

  #giveHome(element: VarElem | LetElem, scope: PlaceRange | undefined): void {
    const binding = this.#scopes.ofDeclaration.get(element);
    if (binding === undefined || (element.kind === "let" && isPointer(element.init))) {
      this.#checkPointer(element);
      return;
    }
    const { name, type, isAddressed } = binding;
    if (type === undefined) {
      throw new NotResumable(
        `the type of ${name} (${this.#kernel.source.place(element.start)}) cannot be found: declare it, ${element.kind} ${name}: TYPE = …`,
      );
    }
    const { kept } = this.#context;
    const variable = `pm_v${kept.length}_${name}`;
    kept.push({ name: variable, type, isLive: scope === undefined ? "false" : this.#within(scope) });
    binding.home = variable;
    if (isAddressed) {
      binding.home = `pm_f${kept.length}_${name}`;
      this.#copies.push({ home: binding.home, kept: variable, type });
    }
  }

  /** A pointer is made again in each run: it must be the same then. */
  #checkPointer(element: VarElem | LetElem): void {
    const target = element.init?.kind === "unary-expression" ? element.init.expression : undefined;
    for (const inner of target === undefined ? [] : everything(target)) {
      const binding = inner.kind === "ref" ? this.#scopes.ofName.get(inner) : undefined;
      const isRoot = target !== undefined && rootOf(target) === inner;
      if (inner.kind === "call-expression" || (binding?.element.kind === "var" && !isRoot)) {
        throw new NotResumable(
          `${element.name.decl.ident.originalName} (${this.#kernel.source.place(element.start)}) points to what a variable chooses, and lives across a loop: use an index in its place`,
        );
      }
    }
  }

  #statements(list: readonly Statement[]): string {
    const last = list.findLastIndex((s) => this.#places.ranges.has(s));
    let text = "";
    let passed = "";
    const flush = () => {
      text += passed === "" ? "" : `if (!pm_skip) { ${passed} }\n`;
      passed = "";
    };
    list.forEach((s, i) => {
      const range = this.#places.ranges.get(s);
      if (i > last) {
        text += `${this.#plain(s)}\n`;
      } else if (range !== undefined) {
        flush();
        text += `if (!pm_skip || ${this.#within(range)}) {\n${this.#withPlaces(s, range)}\n}\n`;
      } else if (this.#isTimeless(s)) {
        flush();
        text += `${this.#plain(s)}\n`;
      } else {
        passed += `${this.#plain(s)} `;
      }
    });
    flush();
    return text;
  }

  /** Constants and pointers: the same in every run. */
  #isTimeless(s: Statement): boolean {
    return s.kind === "const" || s.kind === "assert" || (s.kind === "let" && isPointer(s.init));
  }

  #within({ first, last }: PlaceRange): string {
    return first === last ? `${this.#at} == ${first}u` : `(${this.#at} >= ${first}u && ${this.#at} <= ${last}u)`;
  }

  /** A statement without places in it. */
  #plain(s: Statement): string {
    const binding = s.kind === "var" || s.kind === "let" ? this.#scopes.ofDeclaration.get(s) : undefined;
    if (binding?.home === undefined || (s.kind !== "var" && s.kind !== "let")) {
      return this.#source(s);
    }
    return `${this.#declared(binding, s.init)};`;
  }

  #declared({ home, type }: Binding, init: ExpressionElem | undefined): string {
    return `${home} = ${init === undefined && type !== undefined ? `${typeText(type)}()` : this.#source(init)}`;
  }

  #withPlaces(s: Statement, range: PlaceRange): string {
    const before = (this.#places.calls.get(s) ?? []).map((call) => this.#call(call)).join("\n");
    return `${before}${this.#afterCalls(s, range)}`;
  }

  #afterCalls(s: Statement, range: PlaceRange): string {
    switch (s.kind) {
      case "block":
        return `{ ${this.#statements(s.body)} }`;
      case "if":
        return this.#if(s);
      case "switch": {
        const selector = `pm_v${this.#context.kept.length}_selector`;
        const type = concrete(typeOf(this.#kernel, s.selector, this.#scopes.typeOfName));
        if (type === undefined) {
          throw new NotResumable(
            `the type of the switch (${this.#kernel.source.place(s.start)}) cannot be found: give its value a name, let x: TYPE = …`,
          );
        }
        this.#context.kept.push({ name: selector, type });
        const clauses = s.clauses.map((clause) => {
          const selectors = clause.selectors.map((e) => (e === "default" ? e : this.#source(e)));
          return `case ${selectors.join(", ")}: { ${this.#statements(clause.body.body)} }`;
        });
        return `if (!pm_skip) { ${selector} = ${this.#source(s.selector)}; }\nswitch ${selector} {\n${clauses.join("\n")}\n}`;
      }
      case "for":
        return this.#for(s, range.first);
      case "while":
        return this.#while(s, range.first);
      case "loop":
        return this.#loop(s, range.first);
      case "call":
        return this.#results.has(s.call) ? "" : this.#source(s);
      default:
        return this.#plain(s);
    }
  }

  #if(s: IfElem): string {
    const yes = this.#rangeOf(s.body.body);
    const found = yes === undefined ? "" : `(pm_skip && ${this.#within(yes)}) || `;
    return `if (${found}(!pm_skip && (${this.#source(s.condition)}))) { ${this.#statements(s.body.body)} }${this.#else(s.else)}`;
  }

  #else(s: IfElem["else"]): string {
    if (s === undefined) {
      return "";
    }
    if (!this.#places.ranges.has(s)) {
      // The text of an `else if` begins with the `else`.
      return s.kind === "if" ? ` ${this.#source(s)}` : ` else ${this.#source(s)}`;
    }
    return ` else { ${this.#statements(s.kind === "block" ? s.body : [s])} }`;
  }

  #rangeOf(list: readonly Statement[]): PlaceRange | undefined {
    const ranges = list.flatMap((s) => this.#places.ranges.get(s) ?? []);
    const first = ranges[0]?.first;
    const last = ranges.at(-1)?.last;
    return first === undefined || last === undefined ? undefined : { first, last };
  }

  #head(place: number): string {
    return `${this.#context.loopCheck}
if (pm_skip) { pm_skip = ${this.#at} != ${place}u; }
else if (${this.#context.ready}) { ${this.#at} = ${place}u; ${this.#copyOut()} if (pm_point()) { ${this.#leave} } }`;
  }

  #copyOut(): string {
    return this.#copies.map(({ home, kept }) => `${kept} = ${home};`).join(" ");
  }

  #until(condition: ExpressionElem | undefined): string {
    return condition === undefined ? "" : `if (!pm_skip) { if (!(${this.#source(condition)})) { break; } }`;
  }

  #for(s: ForElem, place: number): string {
    const { init, update } = s;
    const once = init === undefined ? "" : `${this.#plain(init).replace(/;$/, "")};`;
    const before = init === undefined || this.#isTimeless(init) ? once : `if (!pm_skip) { ${once} }`;
    const step = update === undefined ? "" : this.#source(update).replace(/;$/, "");
    return `${before}
for (; ; ${step}) {
${this.#head(place)}
${this.#until(s.condition)}
${this.#statements(s.body.body)}}`;
  }

  #while(s: WhileElem, place: number): string {
    return `loop {
${this.#head(place)}
${this.#until(s.condition)}
${this.#statements(s.body.body)}}`;
  }

  #loop(s: LoopElem, place: number): string {
    const body = s.body.body.filter((inner) => inner.kind !== "continuing");
    const continuing = s.body.body.find((inner) => inner.kind === "continuing") ?? s.continuing;
    return `loop {
${this.#head(place)}
${this.#statements(body)}
${continuing === undefined ? "" : this.#source(continuing)}}`;
  }

  /** A call with places, made before the rest of its statement. */
  #call({ call, callee, place }: PlacedCall): string {
    const args = call.arguments.map((arg, i) => `${paramVariable(callee, i)} = ${this.#source(arg)};`).join(" ");
    const type = callee.returnType === undefined ? undefined : namedType(this.#kernel, callee.returnType);
    const result = `pm_v${this.#context.kept.length}_${callee.name.ident.originalName}`;
    this.#results.set(call, result);
    if (type !== undefined) {
      this.#context.kept.push({ name: result, type });
    }
    return `if (!pm_skip || ${this.#at} == ${place}u) {
if (!pm_skip) { ${args} ${this.#at} = ${place}u; ${this.#copyOut()} }
${type === undefined ? "" : `${result} = `}${resumableName(callee)}();
if (pm_rewind != 0u) { ${this.#leave} }
${placeVariable(callee)} = 0u;
}
`;
  }

  /** Source with the homes of variables in place of their names, and a check in each loop. */
  #source(elem: Statement | ExpressionElem | undefined): string {
    if (elem === undefined) {
      return "";
    }
    const { text } = this.#kernel.source;
    const edits = new Edits();
    const inner = [...everything(elem)];
    const replaced = inner.flatMap((e) => {
      const result = e.kind === "call-expression" ? this.#results.get(e) : undefined;
      return e.kind === "call-expression" && result !== undefined ? [{ start: e.start, end: e.end, result }] : [];
    });
    // What is in a call that was made before is its text's.
    const isHere = (at: number) => at >= elem.start && !replaced.some(({ start, end }) => at >= start && at < end);
    for (const { start, end, result } of replaced) {
      if (
        !replaced.some((other) => other.start <= start && end <= other.end && other.end - other.start > end - start)
      ) {
        edits.replace({ start, end }, result);
      }
    }
    for (const e of inner) {
      if (e.kind === "ref" && isHere(e.start)) {
        const { originalName } = e.ident;
        const name = this.#scopes.ofName.get(e)?.home ?? svmName(this.#kernel, originalName);
        if (name !== originalName) {
          edits.replace(e, name);
        }
      } else if ((e.kind === "for" || e.kind === "while" || e.kind === "loop") && isHere(e.start)) {
        edits.insert(text.indexOf("{", e.body.start) + 1, this.#context.loopCheck);
      }
    }
    this.#context.bound?.edit(edits, (at) => at < elem.end && isHere(at));
    return edits.slice(text, elem.start, elem.end);
  }
}

function blocksOf(s: Statement): readonly (readonly Statement[])[] {
  switch (s.kind) {
    case "block":
      return [s.body];
    case "if":
      return [s.body.body, ...(s.else === undefined ? [] : s.else.kind === "block" ? [s.else.body] : [[s.else]])];
    case "for":
    case "while":
      return [s.body.body];
    case "loop":
      return [s.body.body.filter((inner) => inner.kind !== "continuing")];
    case "switch":
      return s.clauses.map((clause) => clause.body.body);
    default:
      return [];
  }
}

function isPointer(e: ExpressionElem | undefined): boolean {
  return e?.kind === "unary-expression" && e.operator.value === "&";
}
