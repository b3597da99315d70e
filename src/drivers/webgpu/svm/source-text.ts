/** A WGSL text with places in it, and edits that keep the places known. */
import { KernelError } from "../../../base/index.ts";

/** A kernel's source, for error messages that name a line and a column. */
export class SourceText {
  readonly text: string;
  /** The kernel's name in errors. */
  readonly op: string;

  constructor(text: string, op: string) {
    this.text = text;
    this.op = op;
  }

  slice(span: { readonly start: number; readonly end: number }): string {
    return this.text.slice(span.start, span.end);
  }

  /** `line:column`, both from 1. */
  place(offset: number): string {
    const before = this.text.slice(0, offset).split(/\r\n|[\n\v\f\r\u0085\u2028\u2029]/);
    return `${before.length}:${(before.at(-1)?.length ?? 0) + 1}`;
  }

  error(code: "EINVAL" | "ENOTSUP", offset: number, why: string): KernelError {
    return new KernelError(code, this.op, `${this.place(offset)} ${why}`);
  }
}

interface Edit {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** Replacements in a text; those that are made at one place come out in the order in which they were made, insertions first. */
export class Edits {
  readonly #edits: Edit[] = [];

  insert(at: number, text: string): void {
    this.#edits.push({ start: at, end: at, text });
  }

  replace(span: { readonly start: number; readonly end: number }, text: string): void {
    this.#edits.push({ start: span.start, end: span.end, text });
  }

  /** Replaces with blanks, so that lines and columns stay. */
  blank(source: string, span: { readonly start: number; readonly end: number }): void {
    this.replace(span, source.slice(span.start, span.end).replace(/[^\n\r]/g, " "));
  }

  /** A part of the text with the edits so far that lie in it. */
  slice(source: string, start: number, end: number): string {
    const inside = new Edits();
    for (const edit of this.#edits) {
      if (edit.start >= start && edit.end <= end) {
        inside.#edits.push({ ...edit, start: edit.start - start, end: edit.end - start });
      }
    }
    return inside.apply(source.slice(start, end)).text;
  }

  apply(source: string): EditedText {
    const edits = this.#edits
      .map((edit, order) => ({ ...edit, order }))
      .sort((a, b) => a.start - b.start || insertionsFirst(a, b) || a.order - b.order);
    let text = "";
    let at = 0;
    const moved: Moved[] = [];
    for (const edit of edits) {
      text += source.slice(at, edit.start);
      moved.push({ at: text.length, length: edit.text.length, source: edit.start, removed: edit.end - edit.start });
      text += edit.text;
      at = edit.end;
    }
    return { text: text + source.slice(at), moved };
  }
}

/** What is inserted where a replaced text begins stands before it. */
function insertionsFirst(a: Edit, b: Edit): number {
  return Number(a.end > a.start) - Number(b.end > b.start);
}

interface Moved {
  readonly at: number;
  readonly length: number;
  readonly source: number;
  readonly removed: number;
}

/** A text after its edits. */
export interface EditedText {
  readonly text: string;
  readonly moved: readonly Moved[];
}

/** Where in the source a place of the edited text comes from; inside a replacement, where that begins. */
export function sourceOffset(edited: EditedText, offset: number): number {
  let shift = 0;
  for (const { at, length, source, removed } of edited.moved) {
    if (offset < at) {
      break;
    }
    if (offset < at + length) {
      return source + Math.min(offset - at, removed);
    }
    shift = source + removed - (at + length);
  }
  return offset + shift;
}
