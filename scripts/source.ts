/** Reads TypeScript source far enough for the project's checks: what it imports, and its code without comments and strings. */

/** One import of a file, a type import or a dynamic one included. */
export interface ImportOf {
  readonly specifier: string;
  readonly line: number;
  /** `import type` and `export type`: gone at run time. */
  readonly typeOnly: boolean;
}

interface Stripped {
  /** The source with comments and template literals blanked; strings stay. */
  readonly withStrings: string;
  /** The source with comments, strings, templates and regular expressions blanked. */
  readonly code: string;
}

const REGEX_MAY_FOLLOW = /(?:^|[(,=:[!&|?{};+\-*%<>~^]|\b(?:return|typeof|case|in|of|void|delete|await))\s*$/;

function endOfString(text: string, start: number): number {
  let i = start + 1;
  while (i < text.length && text[i] !== text[start] && text[i] !== "\n") {
    i += text[i] === "\\" ? 2 : 1;
  }
  return Math.min(i + 1, text.length);
}

function endOfTemplate(text: string, start: number): number {
  let i = start + 1;
  while (i < text.length && text[i] !== "`") {
    if (text[i] === "\\") {
      i += 2;
    } else if (text.startsWith("${", i)) {
      i = endOfSubstitution(text, i + 2);
    } else {
      i += 1;
    }
  }
  return Math.min(i + 1, text.length);
}

function endOfSubstitution(text: string, start: number): number {
  let depth = 1;
  let i = start;
  while (i < text.length && depth > 0) {
    const c = text[i];
    if (c === "`") {
      i = endOfTemplate(text, i);
    } else if (c === '"' || c === "'") {
      i = endOfString(text, i);
    } else {
      depth += c === "{" ? 1 : c === "}" ? -1 : 0;
      i += 1;
    }
  }
  return i;
}

function endOfRegex(text: string, start: number): number {
  let inClass = false;
  let i = start + 1;
  while (i < text.length && text[i] !== "\n" && (inClass || text[i] !== "/")) {
    inClass = text[i] === "[" || (inClass && text[i] !== "]");
    i += text[i] === "\\" ? 2 : 1;
  }
  return Math.min(i + 1, text.length);
}

const blank = (text: string) => text.replace(/[^\n]/g, " ");

/** Takes comments and literals out; line numbers stay as they are. */
export function stripSource(text: string): Stripped {
  let withStrings = "";
  let code = "";
  let i = 0;
  const take = (end: number, keepIn: "both" | "strings" | "none") => {
    const piece = text.slice(i, end);
    withStrings += keepIn === "none" ? blank(piece) : piece;
    code += keepIn === "both" ? piece : blank(piece);
    i = end;
  };
  while (i < text.length) {
    const c = text[i];
    if (text.startsWith("//", i)) {
      const end = text.indexOf("\n", i);
      take(end < 0 ? text.length : end, "none");
    } else if (text.startsWith("/*", i)) {
      const end = text.indexOf("*/", i + 2);
      take(end < 0 ? text.length : end + 2, "none");
    } else if (c === '"' || c === "'") {
      take(endOfString(text, i), "strings");
    } else if (c === "`") {
      take(endOfTemplate(text, i), "none");
    } else if (c === "/" && REGEX_MAY_FOLLOW.test(code.slice(-80))) {
      take(endOfRegex(text, i), "none");
    } else {
      take(i + 1, "both");
    }
  }
  return { withStrings, code };
}

const IMPORTS = [
  /(?:^|[;\n}])[ \t]*(?:import|export)\b[^;"'()]*?\bfrom\s*["']([^"'\n]+)["']/g,
  /(?:^|[;\n}])[ \t]*import\s*["']([^"'\n]+)["']/g,
  /\bimport\s*\(\s*["']([^"'\n]+)["']/g,
];

/** What a source file imports, in the order of its lines. */
export function importsOf(text: string): ImportOf[] {
  const { withStrings } = stripSource(text);
  const found = IMPORTS.flatMap((pattern) =>
    [...withStrings.matchAll(pattern)].map((match) => ({
      specifier: match[1] ?? "",
      typeOnly: /^[;\n}]?\s*(?:import|export)\s+type\b/.test(match[0]),
      line: withStrings.slice(0, (match.index ?? 0) + match[0].length).split("\n").length,
    })),
  );
  return found.sort((a, b) => a.line - b.line);
}
