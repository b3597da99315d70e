/** `npm run invariants`: the ids in the tables of INVARIANTS.md are the ids that src cites. */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { reportAndExit, sourceFiles } from "./files.ts";

const ID = /\bI-[A-Z]+-\d+\b/g;
const ROW = /^\|\s*(I-[A-Z]+-\d+)\s*\|/gm;

/** Ids that are in one place only, or twice in the table, one line each. */
export function checkInvariants(table: string, sources: ReadonlyMap<string, string>): string[] {
  const problems: string[] = [];
  const listed = new Set<string>();
  for (const [, id = ""] of table.matchAll(ROW)) {
    if (listed.has(id)) {
      problems.push(`INVARIANTS.md: ${id} has two rows`);
    }
    listed.add(id);
  }
  const cited = new Map<string, string>();
  const asserted = new Set<string>();
  for (const [file, text] of sources) {
    for (const [id] of text.matchAll(ID)) {
      cited.set(id, cited.get(id) ?? file);
      if (!file.endsWith(".test.ts")) {
        asserted.add(id);
      }
    }
  }
  for (const [id, file] of cited) {
    if (!listed.has(id)) {
      problems.push(`${file}: cites ${id}, which has no row in INVARIANTS.md`);
    }
  }
  for (const id of listed) {
    if (!asserted.has(id)) {
      problems.push(`INVARIANTS.md: no code of src cites ${id}`);
    }
  }
  return problems;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
  const files = sourceFiles(path.join(root, "src"));
  const sources = new Map(files.map((file) => [`src/${file}`, readFileSync(path.join(root, "src", file), "utf8")]));
  const document = path.join(root, "INVARIANTS.md");
  const table = existsSync(document) ? readFileSync(document, "utf8") : "";
  reportAndExit("invariants", checkInvariants(table, sources), "the table and the code cite the same ids");
}
