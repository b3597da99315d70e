/** What is tried again, how often and when. */
import pRetry from "p-retry";
import type { KernelError } from "../../base/index.ts";

/** How often and how fast a request is tried again. */
export interface RetryPolicy {
  /** Tries after the first that bring nothing. */
  readonly retries: number;
  /** Before the first of them; doubles from try to try, and each wait is stretched by chance up to twice that. */
  readonly backoffMs: number;
}

/** No wait is longer, neither by our doubling nor by a server's Retry-After. */
const LONGEST_WAIT_MS = 60_000;

/** A failure that may go away by itself. Never leaves {@link withRetries}. */
export class Transient extends Error {
  override readonly name = "Transient";
  /** What the caller gets when it does not go away. */
  readonly failure: KernelError;
  /** The server asks not to come back earlier. */
  readonly afterMs: number;

  constructor(failure: KernelError, afterMs = 0) {
    super(failure.message, { cause: failure });
    this.failure = failure;
    this.afterMs = afterMs;
  }
}

/**
 * Runs `attempt` until it succeeds, fails for good, or has failed `retries + 1` times in a row without `progressed()`
 * saying that it got further; one that got further is tried again at once.
 * @throws what `attempt` throws; the failure of the last Transient; `signal.reason`
 */
export async function withRetries<T>(
  policy: RetryPolicy,
  signal: AbortSignal,
  attempt: () => Promise<T>,
  progressed: () => boolean = () => false,
): Promise<T> {
  /** In a row that brought nothing. */
  let failed = 0;
  const isWorthIt = (error: Error) =>
    error instanceof Transient && error.afterMs <= LONGEST_WAIT_MS && failed <= policy.retries;
  try {
    return await pRetry(attempt, {
      retries: Number.POSITIVE_INFINITY,
      minTimeout: policy.backoffMs,
      maxTimeout: LONGEST_WAIT_MS,
      factor: 2,
      randomize: true,
      signal,
      // What consumes no retry is tried again without a wait.
      shouldConsumeRetry: () => failed > 0,
      shouldRetry: ({ error }) => isWorthIt(error),
      onFailedAttempt: async ({ error }) => {
        failed = progressed() ? 0 : failed + 1;
        if (error instanceof Transient && isWorthIt(error)) {
          await sleep(error.afterMs, signal);
        }
      },
    });
  } catch (error) {
    throw error instanceof Transient ? error.failure : error;
  }
}

/** Milliseconds that a Retry-After header asks for: it gives seconds, or a date. */
export function retryAfterMs(header: string | null, now: number = Date.now()): number {
  if (header === null) {
    return 0;
  }
  const ms = /^\d+$/.test(header.trim()) ? Number(header) * 1000 : Date.parse(header) - now;
  return Number.isFinite(ms) ? Math.max(0, ms) : 0;
}

async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (ms === 0 || signal.aborted) {
    return;
  }
  await new Promise<void>((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}
