/**
 * Values that are usually there at once. The hot paths (a lease on resident pages, an invalidation with an idle device)
 * run without a single microtask; only a path that really waits becomes a promise.
 */
export type MaybePromise<T> = T | Promise<T>;

/** Whether the value has to be waited for. */
export function isPromise<T>(value: MaybePromise<T>): value is Promise<T> {
  return value instanceof Promise;
}

/** Runs `next` now when the value is there, later when it is not. */
export function chain<T, U>(value: MaybePromise<T>, next: (value: T) => MaybePromise<U>): MaybePromise<U> {
  return isPromise(value) ? value.then(next) : next(value);
}

/** Calls `end` when `body` is over, however it ends. */
export function finallyDo<T>(body: () => MaybePromise<T>, end: () => void): MaybePromise<T> {
  let result: MaybePromise<T>;
  try {
    result = body();
  } catch (error) {
    end();
    throw error;
  }
  if (isPromise(result)) {
    return result.finally(end);
  }
  end();
  return result;
}
