/** The entry that the package ships. */
export const EXPLORED_ENTRY: string;
/** The body of a module that exports `instantiate(globals)`, and its source map. */
export function bundleExplored(entry: string, options?: { record?: boolean }): Promise<{ code: string; map: string }>;
