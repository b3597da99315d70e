/** Where requests go: the URL, what may be said about it in messages, and the headers that go with it. */
import { KernelError } from "../../base/index.ts";

/** An address and how to ask there. */
export interface Target {
  /** Without user, password and fragment. */
  readonly href: string;
  /** For messages: no secrets that the query may hold. */
  readonly shown: string;
  readonly headers: Readonly<Record<string, string>>;
}

const SECRET_PARAMETER = /auth|credential|key|passw|secret|sig|token/i;
/** What fetch itself drops when a redirect leads to another origin. */
const ORIGIN_HEADERS = new Set(["authorization", "cookie", "host", "proxy-authorization"]);

/**
 * Reads an address. `user:password@` in it become an Authorization header, unless one is given.
 * @throws KernelError EINVAL no HTTP(S) URL
 */
export function parseTarget(url: string | URL, headers: Readonly<Record<string, string>> = {}): Target {
  let parsed: URL;
  try {
    parsed = new URL(url, globalThis.location?.href);
  } catch (cause) {
    throw new KernelError("EINVAL", "open", `"${String(url)}" is not a URL: write it as https://host/path`, { cause });
  }
  if (parsed.protocol !== "http:" && parsed.protocol !== "https:") {
    const why = `${parsed.protocol} URLs cannot be mapped: give an http: or https: URL, or open the file itself`;
    throw new KernelError("EINVAL", "open", why);
  }
  const lower = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
  if (parsed.username !== "" || parsed.password !== "") {
    lower.authorization ??= `Basic ${base64(`${decodeURIComponent(parsed.username)}:${decodeURIComponent(parsed.password)}`)}`;
  }
  return targetOf(parsed, lower);
}

/** The same target after redirects. Credentials stay behind when it is at another origin. */
export function redirectedTarget(target: Target, finalUrl: string): Target {
  if (finalUrl === "" || finalUrl === target.href) {
    return target;
  }
  const final = new URL(finalUrl);
  const kept =
    final.origin === new URL(target.href).origin
      ? target.headers
      : Object.fromEntries(Object.entries(target.headers).filter(([name]) => !ORIGIN_HEADERS.has(name)));
  return targetOf(final, kept);
}

function targetOf(url: URL, headers: Readonly<Record<string, string>>): Target {
  const plain = new URL(url);
  plain.username = "";
  plain.password = "";
  plain.hash = "";
  const shown = new URL(plain);
  for (const name of new Set(shown.searchParams.keys())) {
    if (SECRET_PARAMETER.test(name)) {
      shown.searchParams.set(name, "...");
    }
  }
  return { href: plain.href, shown: shown.href, headers };
}

function base64(text: string): string {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}
