/** What a memory object is made of. */
import type { MemoryObject } from "./memory-object.ts";
import type { Pager } from "./ports.ts";

/** Options of {@link MemoryObject}. */
export interface MemoryObjectOptions {
  readonly pages: number;
  readonly pager?: Pager | undefined;
  /** Makes this a private copy of `object` from page `page` on. */
  readonly source?: { readonly object: MemoryObject; readonly page: number } | undefined;
  /** The source changes under this copy, which then needs the old bytes first (fork). */
  readonly snapshot?: boolean;
}
