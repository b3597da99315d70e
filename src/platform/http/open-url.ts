/** URLs as the backing of memory objects: ranges of them are fetched on fault, nothing is downloaded as a whole. */
import { assertOptions, KernelError, PAGE_SIZE, throwIfAborted } from "../../base/index.ts";
import { MemoryObject, type PhysicalMemory } from "../../mm/index.ts";
import { assertWait } from "../../sync/index.ts";
import { RemoteObject, type RequestPolicy } from "./remote-object.ts";
import { parseTarget } from "./target.ts";
import { type FetchPolicy, UrlPager } from "./url-pager.ts";

/** How a URL is fetched. Byte counts are multiples of the page size, 4096. */
export interface OpenUrlOptions {
  /** Sent with every request, such as `authorization`. Credentials stay behind when a redirect leads to another origin. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Cancels the opening, and as long as the object lives its reads too: they fail with EINTR from then on. */
  readonly signal?: AbortSignal | undefined;
  /** How long the server may send nothing before a request is given up and made again. Default 30,000. */
  readonly timeoutMs?: number | undefined;
  /** How often a request that brings nothing is made again: lost connections, 429, 5xx. Default 5. */
  readonly retries?: number | undefined;
  /** The wait before the first of them, at least; doubles each time. A Retry-After adds to it. Default 200. */
  readonly backoffMs?: number | undefined;
  /** Requests at a time. Default 6. */
  readonly concurrency?: number | undefined;
  /** The least that a request fetches. Default 64 KiB; less suits reads scattered far apart, more a distant server. */
  readonly requestBytes?: number | undefined;
  /** The most that one request fetches, and the most that is fetched ahead of sequential reads. Default 4 MiB. */
  readonly readAheadBytes?: number | undefined;
  /** Bytes kept that were fetched and not read yet. Default 16 MiB. */
  readonly cacheBytes?: number | undefined;
  /** What makes the requests. Default: the global `fetch`. */
  readonly fetch?: typeof fetch | undefined;
}

/**
 * Opens an HTTP(S) URL as a memory object, for `mm.mmap({ object, prot: "r" })` or a private mapping. The caller owns one
 * reference and `put()`s it when it needs the object no more; mappings hold their own.
 *
 * The server must send ranges, and a strong ETag or Last-Modified: every range is checked to be of the version that was
 * there at the opening. Once the object is seen to have changed, all reads of it fail with EIO; bytes of two versions are
 * never mixed. (Many servers derive both from the file's length and time in seconds: two versions of one length within
 * a second are one to them.) Redirects are followed once; reads go to where they led.
 *
 * In a browser, a server of another origin must allow the headers Range and If-Range, and expose Content-Range, ETag,
 * Last-Modified and Accept-Ranges.
 * @throws KernelError EINVAL no HTTP(S) URL, an empty object, a wrong option; ENOENT for 404 and 410; EACCES for 401 and
 *   403; ENOTSUP no ranges, no validator, or an encoded body; EIO any other failure, after retries; EINTR. Each names
 *   the URL and what to do. Reads fail with EIO, ENOENT, EACCES, ENOTSUP and EINTR alike.
 */
export async function openUrlObject(
  memory: PhysicalMemory,
  url: string | URL,
  options: OpenUrlOptions = {},
): Promise<MemoryObject> {
  const [requests, fetching] = policiesOf(options);
  const remote = await openRemote(url, options, requests);
  const pager = new UrlPager(remote, fetching, options.signal);
  try {
    return new MemoryObject(memory, { pages: Math.ceil(pager.length / PAGE_SIZE), pager });
  } catch (error) {
    await pager.close();
    throw error;
  }
}

/**
 * Asks a server for an object's length, and whether it can be mapped at all.
 * @throws KernelError as {@link openUrlObject}
 */
export async function statUrl(url: string | URL, options: OpenUrlOptions = {}): Promise<{ readonly length: number }> {
  const remote = await openRemote(url, options, policiesOf(options)[0]);
  return { length: remote.version.length };
}

async function openRemote(url: string | URL, options: OpenUrlOptions, policy: RequestPolicy): Promise<RemoteObject> {
  assertWait("open", options);
  const target = parseTarget(url, options.headers);
  throwIfAborted(options.signal, "open");
  return RemoteObject.open(target, policy, options.signal ?? new AbortController().signal);
}

function policiesOf(options: OpenUrlOptions): [RequestPolicy, FetchPolicy] {
  assertOptions("open", options);
  const chunkBytes = countOf(options, "requestBytes", 64 * 1024, PAGE_SIZE);
  const mostBytes = countOf(options, "readAheadBytes", 4 * 2 ** 20, PAGE_SIZE);
  return [
    {
      timeoutMs: countOf(options, "timeoutMs", 30_000, 1),
      retries: countOf(options, "retries", 5, 0),
      backoffMs: countOf(options, "backoffMs", 200, 0),
      fetch: options.fetch ?? globalThis.fetch.bind(globalThis),
    },
    {
      concurrency: countOf(options, "concurrency", 6, 1),
      chunkBytes,
      mostBytes: Math.max(1, Math.floor(mostBytes / chunkBytes)) * chunkBytes,
      cacheBytes: countOf(options, "cacheBytes", 16 * 2 ** 20, 0),
    },
  ];
}

type Count = "requestBytes" | "readAheadBytes" | "cacheBytes" | "timeoutMs" | "retries" | "backoffMs" | "concurrency";

/** An option that is a whole number, and of pages where it counts bytes. */
function countOf(options: OpenUrlOptions, name: Count, fallback: number, least: number): number {
  const value = options[name] ?? fallback;
  const unit = name.endsWith("Bytes") ? PAGE_SIZE : 1;
  if (!Number.isSafeInteger(value) || value < least || value % unit !== 0) {
    const what = unit === 1 ? "a whole number" : `a multiple of ${unit}`;
    throw new KernelError("EINVAL", "open", `${name} ${value}: give ${what} from ${least} up`);
  }
  return value;
}
