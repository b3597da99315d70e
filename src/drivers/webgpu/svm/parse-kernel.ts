/** Reads a kernel with the parser of `wesl`, and resolves what it calls. */
import {
  type AbstractElem,
  childElems,
  type FnElem,
  type FunctionCallExpression,
  type GlobalVarElem,
  type ImportStatement,
  type ModuleElem,
  parseSrcModule,
  type StructElem,
} from "wesl";
import { SVM_FUNCTIONS, SVM_TYPES } from "./functions.ts";
import { Edits, SourceText } from "./source-text.ts";
import { SVM_MODULE } from "./uses-svm.ts";

/** A parsed kernel. */
export interface ParsedKernel {
  readonly source: SourceText;
  readonly module: ModuleElem;
  readonly functions: ReadonlyMap<string, FnElem>;
  readonly structs: ReadonlyMap<string, StructElem>;
  readonly variables: ReadonlyMap<string, GlobalVarElem>;
  /** Names given by `import … as`. */
  readonly aliases: ReadonlyMap<string, string>;
  /** Paths of the module itself: its own, and those that an import of it gives. */
  readonly modules: ReadonlySet<string>;
  /** Names that something inside a function has. */
  readonly localNames: ReadonlySet<string>;
}

/** Names of WGSL that the generated code uses: a declaration of the same name would change what they mean. */
const RESERVED = new Set(
  `u32 i32 f32 bool vec2u vec3u vec4u vec4i vec4f array atomic min max select bitcast arrayLength atomicLoad atomicStore
   atomicAdd atomicMin atomicMax atomicAnd atomicOr atomicXor atomicExchange atomicCompareExchangeWeak workgroupBarrier
   workgroupUniformLoad`.split(/\s+/),
);

/**
 * Parses a kernel.
 *
 * Errors: EINVAL for WGSL that does not parse, for names of the user's that begin with `pm_`, and for names of ours that
 * do not exist; ENOTSUP for imports from elsewhere.
 */
export function parseKernel(wgsl: string, op: string): ParsedKernel {
  const source = new SourceText(wgsl, op);
  const { moduleElem: module, diagnostics } = parse(source);
  const problem = diagnostics.find((diagnostic) => diagnostic.severity === "error");
  if (problem !== undefined) {
    throw source.error("EINVAL", problem.start, `${problem.message}${foundAt(wgsl, problem.start)}`);
  }
  const functions = new Map<string, FnElem>();
  const structs = new Map<string, StructElem>();
  const variables = new Map<string, GlobalVarElem>();
  const aliases = new Map<string, string>();
  const modules = new Set([SVM_MODULE]);
  for (const decl of module.decls) {
    if (decl.kind === "fn") {
      functions.set(decl.name.ident.originalName, decl);
    } else if (decl.kind === "struct") {
      structs.set(decl.name.ident.originalName, decl);
    } else if (decl.kind === "gvar") {
      variables.set(decl.name.decl.ident.originalName, decl);
    } else if (decl.kind === "import") {
      collectImports(source, decl.start, decl.imports, [], { aliases, modules });
    }
  }
  const localNames = new Set<string>();
  const kernel = { source, module, functions, structs, variables, aliases, modules, localNames };
  checkNames(kernel, localNames);
  return kernel;
}

/** The word that stands at a place. Where it looks like any name, it is mostly one that WGSL keeps for itself. */
function foundAt(wgsl: string, offset: number): string {
  const word = /^\s*([\p{XID_Start}_]\p{XID_Continue}*)/u.exec(wgsl.slice(offset))?.[1];
  return word === undefined ? "" : `, but there is "${word}": if it is meant as a name, WGSL may reserve it`;
}

function parse(source: SourceText): ReturnType<typeof parseSrcModule> {
  try {
    return parseSrcModule({ modulePath: "package::kernel", debugFilePath: source.op, src: source.text });
  } catch (error) {
    throw source.error("EINVAL", 0, `the WGSL cannot be read: ${error instanceof Error ? error.message : error}`);
  }
}

function collectImports(
  source: SourceText,
  at: number,
  tree: ImportStatement,
  path: readonly string[],
  names: { readonly aliases: Map<string, string>; readonly modules: Set<string> },
): void {
  const here = [...path, ...tree.segments.map((segment) => segment.name)];
  const { finalSegment } = tree;
  if (finalSegment.kind === "import-collection") {
    for (const subtree of finalSegment.subtrees) {
      collectImports(source, at, subtree, here, names);
    }
    return;
  }
  const { name, as = name } = finalSegment;
  if ([...here, name].join("::") === SVM_MODULE) {
    names.modules.add(as);
    return;
  }
  if (here.join("::") !== SVM_MODULE) {
    throw source.error(
      "ENOTSUP",
      at,
      `import of ${[...here, name].join("::")}: only ${SVM_MODULE} is known here; link other modules first`,
    );
  }
  if (!isOurs(name)) {
    throw source.error("EINVAL", at, unknownName(name));
  }
  names.aliases.set(as, name);
}

function isOurs(name: string): boolean {
  return SVM_FUNCTIONS.has(name) || SVM_TYPES.has(name);
}

function unknownName(name: string): string {
  const stem = name.replace(/_[^_]*$/, "");
  const near = [...SVM_FUNCTIONS.keys()].filter((known) => known.startsWith(stem));
  const list = near.length > 0 ? near : ["pm_load_…", "pm_store_…", "pm_atomic_…", "pm_span…"];
  return `${SVM_MODULE} has no ${name}: there is ${list.join(", ")}`;
}

/** Checks all names, and notes those of functions' own declarations. */
function checkNames(kernel: ParsedKernel, localNames: Set<string>): void {
  const { source, module } = kernel;
  for (const elem of everything(module)) {
    if (elem.kind === "decl") {
      if (!elem.ident.isGlobal) {
        localNames.add(elem.ident.originalName);
      }
      checkDeclared(kernel, elem.ident.originalName, elem.ident.isGlobal, elem.start);
    } else if (elem.kind === "ref") {
      const name = svmName(kernel, elem.ident.originalName);
      if (name.startsWith("pm_") && !isOurs(name)) {
        throw source.error("EINVAL", elem.start, unknownName(name));
      }
    } else if (elem.kind === "attribute" && /^@(if|elif|else)$/.test(elem.attribute.kind)) {
      throw source.error("ENOTSUP", elem.start, `${elem.attribute.kind} is not supported: link the module first`);
    }
  }
}

function checkDeclared(kernel: ParsedKernel, name: string, isGlobal: boolean, at: number): void {
  if (/^(pm_|Pm[A-Z])/.test(name)) {
    throw kernel.source.error("EINVAL", at, `${name}: names that begin with pm_ or Pm are the library's: rename it`);
  }
  if (kernel.aliases.has(name)) {
    throw kernel.source.error("EINVAL", at, `${name} is the name of an import, too: rename one of them`);
  }
  if (isGlobal && RESERVED.has(name)) {
    throw kernel.source.error("EINVAL", at, `${name} hides WGSL's own ${name}, which the library uses: rename it`);
  }
}

/** The name of ours that an identifier stands for, or the identifier itself. */
export function svmName(kernel: ParsedKernel, name: string): string {
  const cut = name.lastIndexOf("::");
  return cut >= 0 && kernel.modules.has(name.slice(0, cut)) ? name.slice(cut + 2) : (kernel.aliases.get(name) ?? name);
}

/** The function or type that a call names. */
export function calledName(kernel: ParsedKernel, call: FunctionCallExpression): string {
  const callee = call.function;
  return svmName(kernel, callee.kind === "ref" ? callee.ident.originalName : callee.name.originalName);
}

/** An element and all that is in it, outermost first. */
export function* everything(elem: AbstractElem): Generator<AbstractElem> {
  yield elem;
  for (const child of childElems(elem)) {
    yield* everything(child);
  }
}

/** Edits that make plain WGSL of it: imports blanked, imported names as they are declared. */
export function plainNames(kernel: ParsedKernel): Edits {
  const edits = new Edits();
  for (const elem of everything(kernel.module)) {
    if (elem.kind === "import") {
      edits.blank(kernel.source.text, elem);
    } else if (elem.kind === "ref") {
      const name = svmName(kernel, elem.ident.originalName);
      if (name !== elem.ident.originalName) {
        edits.replace(elem, name);
      }
    }
  }
  return edits;
}
