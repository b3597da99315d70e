/** Types as they stand in a kernel's source. */
import type { TypeRefElem, TypeTemplateParameter } from "wesl";
import type { ParsedKernel } from "./parse-kernel.ts";

/** A type as it stands in the source. In templates the parser gives a plain name as a reference, not as a type. */
export type TypeElem = TypeRefElem | TypeTemplateParameter;

/** Its name without what is in the angle brackets. */
export function typeName(type: TypeElem): string {
  if (type.kind === "type") {
    return type.name.originalName;
  }
  return type.kind === "ref" ? type.ident.originalName : "";
}

/** What is in the angle brackets. */
export function typeParams(type: TypeElem): readonly TypeTemplateParameter[] {
  return type.kind === "type" ? (type.templateParams ?? []) : [];
}

/** What a name given by `alias` stands for; undefined for other names. */
export function aliasOf(kernel: ParsedKernel, name: string): TypeRefElem | undefined {
  for (const decl of kernel.module.decls) {
    if (decl.kind === "alias" && decl.name.ident.originalName === name) {
      return decl.typeRef;
    }
  }
  return undefined;
}

/** With aliases seen through. */
function plainType(kernel: ParsedKernel, type: TypeElem): TypeElem {
  const alias = aliasOf(kernel, typeName(type));
  return alias === undefined ? type : plainType(kernel, alias);
}

/** What an array, a vector or an atomic is made of; undefined for other types. */
export function elementType(kernel: ParsedKernel, type: TypeElem): TypeElem | undefined {
  return typeParams(plainType(kernel, type))[0];
}

/** The type of a struct's member; undefined when there is none. */
export function memberType(kernel: ParsedKernel, type: TypeElem, member: string): TypeElem | undefined {
  const struct = kernel.structs.get(typeName(plainType(kernel, type)));
  return struct?.members.find(({ name }) => name.name === member)?.typeRef;
}
