/** Where plain arrays find a mapping. */
import { PAGE_SIZE, pageAlignUp } from "../base/index.ts";
import { inOneWindow, type Mapping } from "../mm/index.ts";
import type { MappingInfo } from "./protocol.ts";

/** The application's side of a mapping's window, made if need be. Undefined when no one array can show the mapping. */
export function mappingView(mapping: Mapping): MappingInfo["view"] {
  const { mm, start, length } = mapping;
  const vma = mm.vmas.find(start);
  if (vma === undefined || vma.end < pageAlignUp(mapping.end)) {
    return undefined;
  }
  const page = vma.objectPage(start);
  const end = Math.min(vma.object.pages, page + Math.ceil(length / PAGE_SIZE));
  if (page >= end || !inOneWindow(page, end)) {
    return undefined;
  }
  vma.object.windows.ensure(page);
  const found = vma.object.windows.trapAt(page);
  if (found === undefined) {
    const { buffer, byteOffset } = vma.object.windows.offset(page);
    // A service is opened only where memory can be shared.
    return { buffer: buffer as SharedArrayBuffer, byteOffset };
  }
  const { trap, base } = found;
  return { buffer: trap.buffer, byteOffset: trap.byteOffset + (page - base) * PAGE_SIZE };
}
