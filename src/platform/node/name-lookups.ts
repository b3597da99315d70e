/** Host names, for a thread that must not wait for libuv's threads. */
import dns from "node:dns";

type Lookup = typeof dns.lookup;
type Answer = readonly [error: NodeJS.ErrnoException | null, address: unknown, family?: number];
type Callback = (...answer: Answer) => void;

/**
 * Makes this thread answer a host name from memory once it was looked up. Looking up takes one of libuv's threads, and all of
 * them may be waiting for a page that this thread has to fetch from that host. Answers are renewed in the background.
 */
export function rememberLookups(): void {
  const { lookup } = dns;
  const known = new Map<string, Answer>();
  const remembering = (host: string, options: object, callback: Callback) => {
    const key = JSON.stringify([host, options]);
    const answer = known.get(key);
    const ask = lookup as unknown as (host: string, options: object, callback: Callback) => void;
    ask(host, options, (...fresh) => {
      if (fresh[0] === null) {
        known.set(key, fresh);
      }
      if (answer === undefined) {
        callback(...fresh);
      }
    });
    if (answer !== undefined) {
      process.nextTick(() => callback(...answer));
    }
  };
  const typed = (host: string, options: object | Callback, callback: Callback) =>
    isCallback(options) ? remembering(host, {}, options) : remembering(host, options, callback);
  dns.lookup = typed as unknown as Lookup;
}

function isCallback(value: object): value is Callback {
  return typeof value === "function";
}
