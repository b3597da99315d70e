/**
 * Looks at WGSL source as text, for what the reflection library cannot do: it misses uses of a variable in `switch` and
 * `break if`, and does not parse some expressions that WGSL allows. The source has been compiled before: it is valid.
 */

/** The source with comments as blanks, lines kept. */
export function withoutComments(wgsl: string): string {
  let out = "";
  let at = 0;
  while (at < wgsl.length) {
    const start = wgsl.slice(at).search(/\/[/*]/);
    if (start < 0) {
      break;
    }
    const open = at + start;
    const end = wgsl[open + 1] === "/" ? endOfLine(wgsl, open) : endOfBlock(wgsl, open);
    out += wgsl.slice(at, open) + wgsl.slice(open, end).replace(/[^\n\r]/g, " ");
    at = end;
  }
  return out + wgsl.slice(at);
}

function endOfLine(wgsl: string, from: number): number {
  const end = wgsl.slice(from).search(/[\n\v\f\r\u0085\u2028\u2029]/);
  return end < 0 ? wgsl.length : from + end;
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
  return wgsl.length;
}

/**
 * The same kernel in words that the reflection library understands: assertions dropped, and sizes that are expressions
 * given a name. Takes source without comments.
 */
export function simplified(wgsl: string): string {
  const named: string[] = [];
  const nameFor = (expression: string) => {
    named.push(`const pagemirror_size_${named.length} = ${expression};`);
    return `pagemirror_size_${named.length - 1}`;
  };
  const simple = /^\s*(?:\w+)?\s*$/;
  const body = wgsl
    .replace(/\bconst_assert\b[^;]*;/g, (text) => text.replace(/[^\n\r]/g, " "))
    .replace(/@\s*workgroup_size\s*\(((?:[^()]|\([^()]*\))*)\)/g, (_, list: string) => {
      const sizes = list.split(/,(?![^()]*\))/).map((size) => (simple.test(size) ? size : nameFor(size)));
      return `@workgroup_size(${sizes.join(",")})`;
    });
  return `${nameSizes(body, (size) => (simple.test(size) ? size : nameFor(size)))}\n${named.join("\n")}`;
}

/** Gives the sizes of array types what `name` answers. */
function nameSizes(source: string, name: (size: string) => string): string {
  let text = source;
  // From the end: what stands before keeps its place, and inner types are done before the outer ones that they end.
  for (const { index } of [...source.matchAll(/\barray\s*</g)].reverse()) {
    const size = sizeOf(text.slice(index));
    if (size !== undefined) {
      const [start, end] = [index + size.start, index + size.end];
      text = text.slice(0, start) + name(text.slice(start, end)) + text.slice(end);
    }
  }
  return text;
}

/** Where the size of the array type stands that the text begins with: after the last comma of its own template list. */
function sizeOf(text: string): { readonly start: number; readonly end: number } | undefined {
  let angles = 0;
  let parentheses = 0;
  let comma = -1;
  for (let i = text.indexOf("<"); i < text.length; i++) {
    const c = text[i];
    parentheses += c === "(" ? 1 : c === ")" ? -1 : 0;
    if (parentheses === 0) {
      angles += c === "<" ? 1 : c === ">" ? -1 : 0;
      comma = c === "," && angles === 1 ? i : comma;
    }
    if (angles === 0) {
      return comma < 0 || text.slice(comma + 1, i).trim() === "" ? undefined : { start: comma + 1, end: i };
    }
  }
  return undefined;
}

/** The names that a function mentions, itself or through functions that it may call. Takes source without comments. */
export function reachableNames(wgsl: string, entryPoint: string): ReadonlySet<string> {
  const bodies = functionNames(wgsl);
  const reached = new Set<string>();
  const waiting = [entryPoint];
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    for (const mentioned of bodies.get(name) ?? []) {
      if (!reached.has(mentioned)) {
        reached.add(mentioned);
        waiting.push(mentioned);
      }
    }
  }
  return reached;
}

/** By function, the identifiers in its body; members after a dot are not names of variables. */
function functionNames(wgsl: string): Map<string, Set<string>> {
  const tokens = [...wgsl.matchAll(/(\.\s*)?([\p{XID_Start}_][\p{XID_Continue}]*)|[{}]/gu)];
  const bodies = new Map<string, Set<string>>();
  let current: Set<string> | undefined;
  let depth = 0;
  tokens.forEach((token, i) => {
    const [text, dot, name] = token;
    if (text === "{") {
      depth++;
    } else if (text === "}") {
      depth--;
      current = depth === 0 ? undefined : current;
    } else if (depth === 0 && name === "fn") {
      current = new Set();
      bodies.set(tokens[i + 1]?.[2] ?? "", current);
    } else if (depth > 0 && name !== undefined && dot === undefined) {
      current?.add(name);
    }
  });
  return bodies;
}
