/** The code in the documents: which blocks there are, and what their fences ask for. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { ROOT } from "./built.ts";

/** A fenced block. */
export interface Block {
  readonly document: string;
  /** The document and the line. */
  readonly where: string;
  readonly language: string;
  /** The words after the language: see the head of docs.test.ts. */
  readonly info: readonly string[];
  readonly text: string;
}

/** Blocks that make one module: a `ts` or `js` block, and those that are marked as its continuation. */
export interface Program {
  readonly document: string;
  readonly where: string;
  readonly language: string;
  readonly info: readonly string[];
  readonly text: string;
  /** Lines that it has to print, when the document shows its output. */
  readonly prints: string | undefined;
}

/** The project's documents, as paths in the checkout. */
export function documents(): string[] {
  const named = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].filter((name) => existsSync(path.join(ROOT, name)));
  const docs = path.join(ROOT, "docs");
  const others = existsSync(docs) ? readdirSync(docs, { recursive: true, encoding: "utf8" }) : [];
  return [...named, ...others.filter((name) => name.endsWith(".md")).map((name) => path.join("docs", name))];
}

/** The fenced blocks of a document. */
export function blocksOf(document: string, markdown: string): Block[] {
  return [...markdown.matchAll(/^```(\w+)([^\n]*)\n(.*?)^```$/gms)].map((match) => ({
    document,
    where: `${document}:${markdown.slice(0, match.index).split("\n").length}`,
    language: match[1] ?? "",
    info: (match[2] ?? "").split(" ").filter((word) => word !== ""),
    text: match[3] ?? "",
  }));
}

/** All blocks of all documents. */
export function allBlocks(): Block[] {
  return documents().flatMap((name) => blocksOf(name, readFileSync(path.join(ROOT, name), "utf8")));
}

/** Puts continued blocks together, and the output that is shown below a block with it. */
export function programsOf(blocks: readonly Block[], languages: readonly string[]): Program[] {
  const programs: Program[] = [];
  let open: string | undefined;
  for (const { prints, ...block } of blocks.map((block) => ({ ...block, prints: undefined }) satisfies Program)) {
    const last = programs.at(-1);
    if (block.language === "text" && block.info.includes("prints")) {
      if (last === undefined || open !== last.where) {
        throw new Error(`${block.where} shows the output of no program`);
      }
      programs[programs.length - 1] = { ...last, prints: block.text };
    } else if (!languages.includes(block.language)) {
      // Of another kind: a text or a file in between belongs to nobody.
      open = block.language === "text" ? open : undefined;
    } else if (block.info.includes("continued")) {
      const before = programs.findLast((program) => program.document === block.document);
      if (before === undefined) {
        throw new Error(`${block.where} continues nothing`);
      }
      programs[programs.indexOf(before)] = { ...before, text: `${before.text}\n${block.text}` };
      open = before.where;
    } else {
      programs.push({ ...block, prints });
      open = block.where;
    }
  }
  return programs;
}

/** Whether a program printed each of these lines, in order. Numbers may differ, and `…` stands for anything. */
export function printed(stdout: string, lines: string): boolean {
  const patterns = lines
    .trimEnd()
    .split("\n")
    .map((line) =>
      line
        .trim()
        .replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
        .replace(/\d+(?:(?:\\\.|,)\d+)*/g, "[\\d.,]+")
        .replaceAll("…", ".*")
        .replace(/\s+/g, "\\s+"),
    );
  return new RegExp(patterns.join("\\s*\\n(?:.*\\n)*?\\s*")).test(stdout);
}
