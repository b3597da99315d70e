/** WGSL that gives variables their first values again, for a kernel that runs twice in one invocation. */
import type { GlobalVarElem } from "wesl";
import type { ParsedKernel } from "./parse-kernel.ts";
import { aliasOf, type TypeElem, typeName, typeParams } from "./wgsl-types.ts";

/** Statements for the `var<private>` among `names`. */
export function resetPrivate(kernel: ParsedKernel, names: ReadonlySet<string>): string {
  return variablesOf(kernel, names, "private")
    .map(([name, variable]) => {
      const { init } = variable;
      const type = variable.name.typeRef;
      const value = init !== undefined ? kernel.source.slice(init) : type === undefined ? "0" : zeroOf(kernel, type);
      return `${name} = ${value};`;
    })
    .join(" ");
}

/** Statements for the `var<workgroup>` among `names`, for one invocation to run. */
export function resetWorkgroup(kernel: ParsedKernel, names: ReadonlySet<string>): string {
  return variablesOf(kernel, names, "workgroup")
    .map(([name, variable]) => {
      const type = variable.name.typeRef;
      return type === undefined ? "" : clear(kernel, name, type, 0);
    })
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

function zeroOf(kernel: ParsedKernel, type: TypeElem): string {
  return `${kernel.source.slice(type)}()`;
}

/** Atomics cannot be assigned: what holds them is taken apart. */
function clear(kernel: ParsedKernel, path: string, type: TypeElem, depth: number): string {
  if (!holdsAtomics(kernel, type)) {
    return `${path} = ${zeroOf(kernel, type)};`;
  }
  const name = typeName(type);
  if (name === "atomic") {
    return `atomicStore(&${path}, 0);`;
  }
  const [element, length] = typeParams(type);
  if (name === "array" && element !== undefined && length !== undefined) {
    const i = `pm_i${depth}`;
    const inner = clear(kernel, `${path}[${i}]`, element, depth + 1);
    return `for (var ${i} = 0u; ${i} < u32(${kernel.source.slice(length)}); ${i}++) { ${inner} }`;
  }
  const members = kernel.structs.get(name)?.members;
  if (members !== undefined) {
    return members.map((member) => clear(kernel, `${path}.${member.name.name}`, member.typeRef, depth)).join(" ");
  }
  const alias = aliasOf(kernel, name);
  return alias === undefined ? "" : clear(kernel, path, alias, depth);
}

function holdsAtomics(kernel: ParsedKernel, type: TypeElem): boolean {
  const name = typeName(type);
  if (name === "atomic") {
    return true;
  }
  if (name === "array") {
    return typeParams(type)
      .slice(0, 1)
      .some((element) => holdsAtomics(kernel, element));
  }
  const members = kernel.structs.get(name)?.members;
  if (members !== undefined) {
    return members.some((member) => holdsAtomics(kernel, member.typeRef));
  }
  const alias = aliasOf(kernel, name);
  return alias !== undefined && holdsAtomics(kernel, alias);
}
