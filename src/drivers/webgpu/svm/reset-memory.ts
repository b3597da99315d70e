/** WGSL that gives variables their first values again, for a kernel that runs twice in one invocation. */
import type { GlobalVarElem, TypeRefElem } from "wesl";
import type { ParsedKernel } from "./parse-kernel.ts";

/** Statements for the `var<private>` among `names`. */
export function resetPrivate(kernel: ParsedKernel, names: ReadonlySet<string>): string {
  return variablesOf(kernel, names, "private")
    .map(([name, variable]) => {
      const { init, name: decl } = variable;
      const value = init !== undefined ? kernel.source.slice(init) : zeroOf(kernel, decl.typeRef);
      return `${name} = ${value};`;
    })
    .join(" ");
}

/** Statements for the `var<workgroup>` among `names`, for one invocation to run. */
export function resetWorkgroup(kernel: ParsedKernel, names: ReadonlySet<string>): string {
  return variablesOf(kernel, names, "workgroup")
    .map(([name, variable]) => clear(kernel, name, variable.name.typeRef, 0))
    .join(" ");
}

function variablesOf(
  kernel: ParsedKernel,
  names: ReadonlySet<string>,
  space: string,
): (readonly [string, GlobalVarElem])[] {
  return [...kernel.variables].filter(
    ([name, variable]) => names.has(name) && variable.template?.some((word) => word.name === space) === true,
  );
}

function zeroOf(kernel: ParsedKernel, type: TypeRefElem | undefined): string {
  return type === undefined ? "0" : `${kernel.source.slice(type)}()`;
}

/** Atomics cannot be assigned: what holds them is taken apart. */
function clear(kernel: ParsedKernel, path: string, type: TypeRefElem | undefined, depth: number): string {
  if (type === undefined || !holdsAtomics(kernel, type)) {
    return `${path} = ${zeroOf(kernel, type)};`;
  }
  const name = type.name.originalName;
  const [element, length] = type.templateParams ?? [];
  if (name === "atomic") {
    return `atomicStore(&${path}, 0);`;
  }
  if (name === "array" && element?.kind === "type" && length !== undefined) {
    const i = `pm_i${depth}`;
    const inner = clear(kernel, `${path}[${i}]`, element, depth + 1);
    return `for (var ${i} = 0u; ${i} < u32(${kernel.source.slice(length)}); ${i}++) { ${inner} }`;
  }
  const struct = kernel.structs.get(name);
  if (struct !== undefined) {
    return struct.members
      .map((member) => clear(kernel, `${path}.${member.name.name}`, member.typeRef, depth))
      .join(" ");
  }
  const alias = aliasOf(kernel, name);
  return clear(kernel, path, alias, depth);
}

function aliasOf(kernel: ParsedKernel, name: string): TypeRefElem | undefined {
  for (const decl of kernel.module.decls) {
    if (decl.kind === "alias" && decl.name.ident.originalName === name) {
      return decl.typeRef;
    }
  }
  return undefined;
}

function holdsAtomics(kernel: ParsedKernel, type: TypeRefElem): boolean {
  const name = type.name.originalName;
  if (name === "atomic") {
    return true;
  }
  if (name === "array") {
    const element = type.templateParams?.[0];
    return element?.kind === "type" ? holdsAtomics(kernel, element) : nameHoldsAtomics(kernel, element);
  }
  const members = kernel.structs.get(name)?.members;
  if (members !== undefined) {
    return members.some((member) => holdsAtomics(kernel, member.typeRef));
  }
  const alias = aliasOf(kernel, name);
  return alias !== undefined && holdsAtomics(kernel, alias);
}

/** The parser gives a plain name in a template as a reference. */
function nameHoldsAtomics(kernel: ParsedKernel, elem: { readonly kind: string } | undefined): boolean {
  if (elem === undefined || elem.kind !== "ref" || !("ident" in elem)) {
    return false;
  }
  const { originalName } = elem.ident as { readonly originalName: string };
  const struct = kernel.structs.get(originalName);
  if (struct !== undefined) {
    return struct.members.some((member) => holdsAtomics(kernel, member.typeRef));
  }
  const alias = aliasOf(kernel, originalName);
  return alias !== undefined && holdsAtomics(kernel, alias);
}
