/** What a response says: which version of the object it is about, which bytes, and what an error status means. */
import { type Errno, KernelError } from "../../base/index.ts";
import { retryAfterMs, Transient } from "./retry.ts";

/** What tells one version of an object from another. */
export interface Version {
  readonly length: number;
  /** A strong entity tag. */
  readonly etag: string | undefined;
  readonly lastModified: string | undefined;
}

/** A Content-Range header. */
export interface ContentRange {
  /** Undefined where the header says that the range cannot be had. */
  readonly range: { readonly start: number; readonly end: number } | undefined;
  /** Undefined where the server does not tell. */
  readonly total: number | undefined;
}

/** Reads `bytes 0-99/1000`; the range or the total may be a star. The range that comes back is half open. */
export function parseContentRange(header: string | null): ContentRange | undefined {
  const match = /^bytes\s+(?:(\d+)-(\d+)|\*)\/(\d+|\*)$/i.exec(header?.trim() ?? "");
  if (match === null) {
    return undefined;
  }
  const [, first, last, total] = match;
  return {
    range: first === undefined ? undefined : { start: Number(first), end: Number(last) + 1 },
    total: total === "*" ? undefined : Number(total),
  };
}

/** The version that a response's headers name, but for its length. Weak entity tags promise nothing about bytes. */
export function versionOf(headers: Headers, length: number): Version {
  const etag = headers.get("etag");
  return {
    length,
    etag: etag === null || etag.startsWith("W/") ? undefined : etag,
    lastModified: headers.get("last-modified") ?? undefined,
  };
}

/** The value of If-Range that asks for this version only. */
export function validatorOf(version: Version): string | undefined {
  return version.etag ?? version.lastModified;
}

/**
 * What a response to a ranged request says of another version, in words; undefined when it is of this one.
 * A partial response must carry the entity tag that it was asked for, but may leave Last-Modified out.
 */
export function differenceFrom(version: Version, headers: Headers, total: number | undefined): string | undefined {
  if (total !== undefined && total !== version.length) {
    return `its length went from ${version.length} to ${total} bytes`;
  }
  if (version.etag !== undefined) {
    const etag = headers.get("etag");
    return etag === version.etag ? undefined : `its ETag went from ${version.etag} to ${etag ?? "none"}`;
  }
  const modified = headers.get("last-modified") ?? version.lastModified;
  return modified === version.lastModified
    ? undefined
    : `its Last-Modified went from ${version.lastModified ?? "none"} to ${modified ?? "none"}`;
}

/** Content-Length, when it is there and says something. */
export function contentLength(headers: Headers): number | undefined {
  const text = headers.get("content-length") ?? "";
  return /^\d+$/.test(text) ? Number(text) : undefined;
}

/** The encoding of the body, when it has one: ranges then count bytes of the encoding, not of the object. */
export function encodingOf(headers: Headers): string | undefined {
  const encoding = headers.get("content-encoding");
  return encoding === null || encoding.toLowerCase() === "identity" ? undefined : encoding;
}

const STATUS: Readonly<Record<number, readonly [Errno, string]>> = {
  401: ["EACCES", "the server asks for credentials: give them in the URL or in the headers option"],
  403: ["EACCES", "the server forbids it: check the credentials, and that a signed URL has not expired"],
  404: ["ENOENT", "nothing is there: check the URL"],
  407: ["EACCES", "the proxy asks for credentials: give it some"],
  410: ["ENOENT", "nothing is there any more: check the URL"],
  416: ["EIO", "the server cannot send this range of it: download it and map the file"],
};

const TRY_LATER = new Set([408, 425, 429, 500, 502, 503, 504]);

/** What a status that is no success means: a {@link KernelError} for good, or a {@link Transient}. */
export function statusError(op: string, shown: string, response: Response): KernelError | Transient {
  const { status } = response;
  if (TRY_LATER.has(status) || status >= 520) {
    const afterMs = retryAfterMs(response.headers.get("retry-after"));
    const when = afterMs > 0 ? `in ${Math.ceil(afterMs / 1000)} s, as the server asks` : "later";
    return new Transient(new KernelError("EIO", op, `${shown}: HTTP ${status}: try again ${when}`), afterMs);
  }
  const [code, why] = STATUS[status] ?? ["EIO", "no answer to a GET: check the URL and the server"];
  return new KernelError(code, op, `${shown}: HTTP ${status}: ${why}`);
}
