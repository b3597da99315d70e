/** Types of browser-example.mjs, for the tests. */

/** Builds the example site into a folder. */
export function buildSite(outDir: string): Promise<void>;
