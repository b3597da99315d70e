/** One version of one object on a web server, read by ranges. */
import { KernelError, throwIfAborted } from "../../base/index.ts";
import {
  contentLength,
  differenceFrom,
  encodingOf,
  parseContentRange,
  statusError,
  type Version,
  validatorOf,
  versionOf,
} from "./responses.ts";
import { type RetryPolicy, Transient, withRetries } from "./retry.ts";
import { redirectedTarget, type Target } from "./target.ts";
import { Watchdog } from "./watchdog.ts";

/** How requests are made. */
export interface RequestPolicy extends RetryPolicy {
  /** The longest silence of a server. */
  readonly timeoutMs: number;
  readonly fetch: typeof fetch;
}

/** Receives the bytes of a range in order, each once. */
export type TakeBytes = (bytes: Uint8Array) => void;

/** Reads ranges of the version that was there when it was opened, and of no other. */
export class RemoteObject {
  readonly target: Target;
  readonly version: Version;
  readonly #policy: RequestPolicy;
  /** Why no range can be read any more. */
  #lost: KernelError | undefined;

  private constructor(target: Target, version: Version, policy: RequestPolicy) {
    this.target = target;
    this.version = version;
    this.#policy = policy;
  }

  /**
   * Finds an object's length and version with a HEAD, or with a GET of one byte where the HEAD says too little.
   * @throws KernelError ENOENT, EACCES, EIO by the server's answer; EINVAL empty; ENOTSUP no ranges, no validator, or an
   *   encoding; EINTR
   */
  static async open(target: Target, policy: RequestPolicy, signal: AbortSignal): Promise<RemoteObject> {
    const head = await headVersion(target, policy, signal);
    const { target: final, version } =
      head ??
      (await withRetries(policy, signal, () => probe(target, policy, signal)).catch(orInterrupted(signal, "open")));
    if (version.length === 0) {
      throw new KernelError("EINVAL", "open", `${final.shown} is empty: there is nothing to map`);
    }
    return new RemoteObject(final, version, policy);
  }

  /**
   * Streams bytes `[start, end)`. After a failure that may pass it goes on where it stopped.
   * @throws KernelError EIO the object has changed, from then on for every range; EIO, ENOENT, EACCES, ENOTSUP by the
   *   server's answer; EINTR
   */
  async read(start: number, end: number, take: TakeBytes, signal: AbortSignal): Promise<void> {
    let at = start;
    let before = start;
    const progressed = () => {
      const further = at > before;
      before = at;
      return further;
    };
    const attempt = () =>
      this.#readOnce(
        at,
        end,
        (bytes) => {
          at += bytes.length;
          take(bytes);
        },
        signal,
      );
    await withRetries(this.#policy, signal, attempt, progressed).catch(orInterrupted(signal, "read"));
  }

  async #readOnce(start: number, end: number, take: TakeBytes, signal: AbortSignal): Promise<void> {
    this.assertThere();
    const { shown } = this.target;
    using watchdog = new Watchdog(signal, this.#policy.timeoutMs);
    const headers = { range: `bytes=${start}-${end - 1}`, "if-range": validatorOf(this.version) ?? "" };
    const response = await send("GET", "read", this.target, headers, this.#policy, watchdog);
    try {
      this.assertThere();
      const sent = this.#rangeOf(response, start, end);
      const whole = await copyBody(response, sent.end - sent.start, watchdog, (bytes) => {
        this.assertThere();
        take(bytes);
      });
      if (whole && sent.end === end) {
        return;
      }
    } catch (error) {
      throw error instanceof KernelError || error instanceof Transient
        ? error
        : networkError("read", shown, error, watchdog);
    } finally {
      // Not waited for: what is left of a body is nobody's business.
      response.body?.cancel().catch(() => undefined);
    }
    throw new Transient(new KernelError("EIO", "read", `${shown}: the server ended its answer early: try again later`));
  }

  /** Which bytes a response brings. */
  #rangeOf(response: Response, start: number, end: number): { readonly start: number; readonly end: number } {
    const { shown } = this.target;
    const content = parseContentRange(response.headers.get("content-range"));
    if (response.status === 416 && content?.total !== undefined && content.total !== this.version.length) {
      throw this.#changed(`its length went from ${this.version.length} to ${content.total} bytes`);
    }
    if (response.status !== 200 && response.status !== 206) {
      throw statusError("read", shown, response);
    }
    assertPlain("read", shown, response);
    // The whole object instead of a range: it has changed, or else the server gives no ranges after all.
    const whole = response.status === 200;
    const total = whole ? contentLength(response.headers) : content?.total;
    const difference = differenceFrom(this.version, response.headers, total);
    if (difference !== undefined) {
      throw this.#changed(difference);
    }
    if (whole) {
      throw noRanges("read", shown);
    }
    if (content?.range?.start !== start || content.range.end > end || content.range.end <= start) {
      const got = response.headers.get("content-range") ?? "no Content-Range";
      const why = `${shown}: asked for bytes ${start}-${end - 1}, the server answers ${got}: download it and map the file`;
      throw new KernelError("EIO", "read", why);
    }
    return content.range;
  }

  #changed(difference: string): KernelError {
    const why = `${this.target.shown} has changed since it was opened: ${difference}: open and map it anew`;
    this.#lost ??= new KernelError("EIO", "read", why);
    return this.#lost;
  }

  /** @throws KernelError EIO the object was seen to have changed */
  assertThere(): void {
    if (this.#lost !== undefined) {
      throw this.#lost;
    }
  }
}

interface Found {
  readonly target: Target;
  readonly version: Version;
}

/** What a HEAD tells, when it tells everything. Its failures count for nothing: the GET that follows has the last word. */
async function headVersion(target: Target, policy: RequestPolicy, signal: AbortSignal): Promise<Found | undefined> {
  using watchdog = new Watchdog(signal, policy.timeoutMs);
  let response: Response;
  try {
    response = await send("HEAD", "open", target, {}, policy, watchdog);
  } catch {
    throwIfAborted(signal, "open");
    return undefined;
  }
  const { headers } = response;
  const length = contentLength(headers);
  if (response.status !== 200 || length === undefined || encodingOf(headers) !== undefined) {
    return undefined;
  }
  const version = versionOf(headers, length);
  const ranges = headers.get("accept-ranges")?.toLowerCase() === "bytes";
  return ranges && validatorOf(version) !== undefined
    ? { target: redirectedTarget(target, response.url), version }
    : undefined;
}

/** What the answer to a GET of the first byte tells. */
async function probe(target: Target, policy: RequestPolicy, signal: AbortSignal): Promise<Found> {
  using watchdog = new Watchdog(signal, policy.timeoutMs);
  const response = await send("GET", "open", target, { range: "bytes=0-0" }, policy, watchdog);
  const { headers, status } = response;
  if (status === 206) {
    await response.arrayBuffer().catch(() => undefined);
  } else {
    response.body?.cancel().catch(() => undefined);
  }
  const final = redirectedTarget(target, response.url);
  const total = parseContentRange(headers.get("content-range"))?.total;
  if ((status === 416 && total === 0) || (status === 200 && contentLength(headers) === 0)) {
    return { target: final, version: versionOf(headers, 0) };
  }
  if (status !== 200 && status !== 206) {
    throw statusError("open", final.shown, response);
  }
  assertPlain("open", final.shown, response);
  if (status === 200) {
    throw noRanges("open", final.shown);
  }
  // A script may see only the headers that another origin exposes.
  const hidden = response.type === "cors" ? ", or let the server expose ETag and Content-Range to this page" : "";
  if (total === undefined) {
    const why = `${final.shown}: the server does not tell its length: download it and map the file${hidden}`;
    throw new KernelError("ENOTSUP", "open", why);
  }
  const version = versionOf(headers, total);
  if (validatorOf(version) === undefined) {
    const why = `${final.shown}: the server sends neither a strong ETag nor Last-Modified, so a change could not be noticed: download it and map the file${hidden}`;
    throw new KernelError("ENOTSUP", "open", why);
  }
  return { target: final, version };
}

async function send(
  method: "GET" | "HEAD",
  op: string,
  target: Target,
  headers: Readonly<Record<string, string>>,
  policy: RequestPolicy,
  watchdog: Watchdog,
): Promise<Response> {
  try {
    return await policy.fetch(target.href, {
      method,
      headers: { ...target.headers, "accept-encoding": "identity", ...headers },
      redirect: "follow",
      signal: watchdog.signal,
    });
  } catch (error) {
    throw networkError(op, target.shown, error, watchdog);
  }
}

/**
 * Takes up to `length` bytes; true when they all came. Reads on to the body's end, so that its connection is used again.
 * @throws the signal's reason
 */
async function copyBody(response: Response, length: number, watchdog: Watchdog, take: TakeBytes): Promise<boolean> {
  const reader = response.body?.getReader();
  if (reader === undefined) {
    return false;
  }
  // fetch alone may leave a read waiting for ever when its signal fires right after the last piece of a body.
  const cancel = () => void reader.cancel().catch(() => undefined);
  watchdog.signal.addEventListener("abort", cancel);
  let left = length;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done || value.length > left) {
        break;
      }
      watchdog.feed();
      take(value);
      left -= value.length;
    }
  } finally {
    watchdog.signal.removeEventListener("abort", cancel);
    reader.releaseLock();
  }
  if (left > 0) {
    watchdog.signal.throwIfAborted();
  }
  return left === 0;
}

function assertPlain(op: string, shown: string, response: Response): void {
  const encoding = encodingOf(response.headers);
  if (encoding !== undefined) {
    const why = `${shown}: the server sends it ${encoding}-encoded though it was asked not to: turn the encoding off for it, or download it and map the file`;
    throw new KernelError("ENOTSUP", op, why);
  }
}

function noRanges(op: string, shown: string): KernelError {
  const why = `${shown}: the server sends no ranges of it (HTTP 200 to a Range request): download it and map the file`;
  return new KernelError("ENOTSUP", op, why);
}

/** Nobody is there, or the wrong one. While an object is open that may pass; at the opening it is rather a wrong URL. */
const WRONG_SERVER = /^(ECONNREFUSED|ENOTFOUND)$|CERT|TLS|SIGNATURE/;
/** What fetch refuses by itself, without a code. */
const REFUSED = /^(bad port|redirect count exceeded|unknown scheme)$/;

function networkError(op: string, shown: string, error: unknown, watchdog: Watchdog): KernelError | Transient {
  const root = rootOf(error);
  if (op === "open" && (WRONG_SERVER.test(codeOf(root)) || REFUSED.test(root instanceof Error ? root.message : ""))) {
    const why = `${shown}: ${reasonOf(error)}: check the URL and its server`;
    return new KernelError("EIO", op, why, { cause: error });
  }
  const why = watchdog.bit
    ? `the server sent nothing for ${watchdog.timeoutMs} ms: try again later, or with a longer timeoutMs`
    : `${reasonOf(error)}: check the network and the server${inPage()}`;
  return new Transient(new KernelError("EIO", op, `${shown}: ${why}`, { cause: error }));
}

/** fetch says "fetch failed" and keeps the reason in `cause`. */
function rootOf(error: unknown): unknown {
  return error instanceof Error && error.cause instanceof Error ? error.cause : error;
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

function reasonOf(error: unknown): string {
  const root = rootOf(error);
  const message = root instanceof Error ? root.message : String(root);
  const code = codeOf(root);
  return message.includes(code) ? message : `${code} ${message}`.trim();
}

/** A failure under a signal that has fired is an interruption. */
function orInterrupted(signal: AbortSignal, op: string): (error: unknown) => never {
  return (error) => {
    throwIfAborted(signal, op);
    throw error;
  };
}

/** A page is not told why a request to another origin fails. */
function inPage(): string {
  return "document" in globalThis || "WorkerGlobalScope" in globalThis
    ? ", and that it is there: the server must allow this page's origin (CORS), with the headers Range and If-Range"
    : "";
}
