/** Words and signs of WGSL source, without comments. */

/** A number, a word, or one sign; signs of two characters that an expression needs are one token where they cannot close a template. */
export interface Token {
  readonly kind: "number" | "name" | "sign";
  readonly text: string;
  /** Where it begins. Neighbours tell that two `>` are a shift. */
  readonly at: number;
}

/** Source that cannot be read, with the reason. Never leaves the reflection. */
export class UnreadableWgsl extends Error {
  override readonly name = "UnreadableWgsl";
}

const TOKEN =
  /(?<number>0[xX][\da-fA-F]+[iu]?|(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?[iufh]?)|(?<name>[\p{XID_Start}_][\p{XID_Continue}]*)|(?<sign><<|<=|==|!=|&&|\|\||->|[^\s])/uy;
const BLANK = /[\s\u0085\u200e\u200f]*/uy;

/** Takes source apart. @throws UnreadableWgsl a block comment that does not end */
export function tokensOf(wgsl: string): Token[] {
  const tokens: Token[] = [];
  for (let at = skipBlank(wgsl, 0); at < wgsl.length; at = skipBlank(wgsl, at)) {
    TOKEN.lastIndex = at;
    const groups = TOKEN.exec(wgsl)?.groups;
    const kind = groups?.number !== undefined ? "number" : groups?.name !== undefined ? "name" : "sign";
    const text = groups?.[kind] ?? wgsl.charAt(at);
    tokens.push({ kind, text, at });
    at += text.length;
  }
  return tokens;
}

/** Past blanks and comments. */
function skipBlank(wgsl: string, from: number): number {
  for (let at = from; ; ) {
    BLANK.lastIndex = at;
    at += BLANK.exec(wgsl)?.[0].length ?? 0;
    if (wgsl.startsWith("//", at)) {
      const end = wgsl.slice(at).search(/[\n\v\f\r\u0085\u2028\u2029]/);
      at = end < 0 ? wgsl.length : at + end;
    } else if (wgsl.startsWith("/*", at)) {
      at = endOfBlock(wgsl, at);
    } else {
      return at;
    }
  }
}

/** Block comments nest. */
function endOfBlock(wgsl: string, from: number): number {
  const mark = /\/\*|\*\//g;
  mark.lastIndex = from;
  let depth = 0;
  for (let match = mark.exec(wgsl); match !== null; match = mark.exec(wgsl)) {
    depth += match[0] === "/*" ? 1 : -1;
    if (depth === 0) {
      return match.index + 2;
    }
  }
  throw new UnreadableWgsl("a comment does not end");
}
