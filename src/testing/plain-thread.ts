/** A thread of an application: uses plain arrays over memory that it was handed, and may block in a page fault. */
import { Worker } from "node:worker_threads";

const SOURCE = `
const { parentPort } = require("node:worker_threads");
parentPort.on("message", async ({ id, body, args }) => {
  try {
    const value = await new (Object.getPrototypeOf(async function () {}).constructor)("args", body)(args);
    parentPort.postMessage({ id, value });
  } catch (error) {
    parentPort.postMessage({ id, error: String(error && error.stack) });
  }
});`;

/** Disposed of: the thread ends, even one that waits in a fault. */
export class PlainThread implements AsyncDisposable {
  readonly worker = new Worker(SOURCE, { eval: true });
  readonly #calls = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  #next = 0;

  constructor() {
    this.worker.on("message", ({ id, value, error }: { id: number; value: unknown; error?: string }) => {
      const call = this.#calls.get(id);
      this.#calls.delete(id);
      if (error === undefined) {
        call?.resolve(value);
      } else {
        call?.reject(new Error(error));
      }
    });
  }

  /** Runs the body of an async function of `args` there. */
  run<T>(body: string, args: Readonly<Record<string, unknown>> = {}): Promise<T> {
    const id = this.#next++;
    return new Promise<T>((resolve, reject) => {
      this.#calls.set(id, { resolve: (value) => resolve(value as T), reject });
      this.worker.postMessage({ id, body, args });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.worker.terminate();
  }
}

/** Statements that make `u32` the words of the range that a trap or a window names. */
export const WORDS = "const u32 = new Uint32Array(args.buffer, args.byteOffset, args.byteLength / 4);";
