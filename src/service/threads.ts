/** The threads behind services: one that outlives them all, and those that serve. */
import type { Worker } from "node:worker_threads";
import { startThread } from "../platform/node/start-thread.ts";
import type { Rescued, Watched } from "./session.ts";

function startWorker(name: string): Worker {
  return startThread(import.meta.url, name, { name: `pagemirror ${name}` });
}

const endings = new WeakMap<Worker, Promise<Error | undefined>>();

/** Resolves when the thread has ended, with what it failed by. */
export function ended(worker: Worker): Promise<Error | undefined> {
  let ending = endings.get(worker);
  if (ending === undefined) {
    ending = new Promise((resolve) => {
      let failure: Error | undefined;
      worker.once("error", (error) => {
        failure = error;
      });
      worker.once("exit", () => resolve(failure));
    });
    endings.set(worker, ending);
  }
  return ending;
}

/**
 * One thread for the next service. A thread costs tens of milliseconds to start, and koffi keeps memory of each one that
 * ended: a program that opens and closes again and again goes on with the same one.
 */
let idle: Worker | undefined;

function startServiceThread(): Worker {
  const worker = startWorker("thread");
  worker.unref();
  void ended(worker).then(() => {
    idle = idle === worker ? undefined : idle;
  });
  return worker;
}

/** A thread that serves nobody. It does not keep the process alive. */
export function takeServiceThread(): Worker {
  const worker = idle ?? startServiceThread();
  idle = undefined;
  return worker;
}

/** The thread serves nobody any more. A second idle one ends; resolves when that is done. */
export async function putServiceThread(worker: Worker, reusable: boolean): Promise<void> {
  if (reusable && idle === undefined) {
    idle = worker;
    return;
  }
  const over = ended(worker);
  worker.ref();
  // It ends itself: one that is ended from outside in the middle of a native callback takes the process along.
  worker.postMessage({ end: true });
  await over;
}

/** What the rescue says about each service. */
const listeners = new Map<number, (rescued: Rescued) => void>();
let rescuer: Worker | undefined;
let lastId = 0;
let keepers = 0;

/** Started when it is first needed, kept as long as the process. It does not keep the process alive. */
function rescueThread(): Worker {
  if (rescuer === undefined) {
    rescuer = startWorker("rescue-thread");
    rescuer.on("message", (rescued: Rescued) => listeners.get(rescued.id)?.(rescued));
    rescuer.unref();
  }
  return rescuer;
}

/** The process stays alive until the returned function is called, because the rescue has something to tell. */
export function keepAlive(): () => void {
  const rescue = rescueThread();
  let kept = true;
  if (keepers++ === 0) {
    rescue.ref();
  }
  return () => {
    if (kept) {
      kept = false;
      if (--keepers === 0) {
        rescue.unref();
      }
    }
  };
}

/** A service under the eyes of the thread that outlives it. */
export interface WatchedService {
  /** All is over: it was closed, or its memory is poisoned. */
  readonly over: Promise<Rescued>;
  /** Poisons its memory now. */
  readonly giveUp: () => void;
}

/** Has a service watched. `onSilence` is told when it has shown no sign of life for some milliseconds. */
export function watchService(service: Omit<Watched, "id">, onSilence: (ms: number) => void): WatchedService {
  const rescue = rescueThread();
  const id = ++lastId;
  const over = new Promise<Rescued>((resolve) => {
    listeners.set(id, (rescued) => {
      if (rescued.over) {
        listeners.delete(id);
        resolve(rescued);
      } else {
        onSilence(rescued.silent ?? 0);
      }
    });
  });
  rescue.postMessage({ watch: { ...service, id } satisfies Watched }, [service.service]);
  return { over, giveUp: () => rescue.postMessage({ giveUp: id }) };
}
