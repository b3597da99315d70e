/**
 * A service thread: owns the address space, the driver and the GPU of one service at a time, and serves page faults from its
 * event loop. It outlives its service: the next one that is opened finds it warm.
 */
import { type MessagePort, parentPort } from "node:worker_threads";
import type { KernelError } from "../base/index.ts";
import { rememberLookups } from "../platform/node/name-lookups.ts";
import { FaultLog } from "../platform/userfaultfd/fault-log.ts";
import { pinThread } from "../platform/userfaultfd/pin.ts";
import { ServiceHost } from "./host.ts";
import { openTrapParts, type TrapParts } from "./parts.ts";
import type { Notice, Wish } from "./protocol.ts";
import { BEAT_MS, type Session, type Told, Word } from "./session.ts";
import { TraceSender } from "./trace-relay.ts";
import { serveChannel, wireError } from "./wire.ts";

/** How often writes to what may only be read are looked for. A scan takes 2 ms a GiB. */
const SWEEP_MS = 250;

/** For tests. */
let sticking = false;

/** Resolves when the thread may end. */
let abandon = async (_error: Error) => {};

process.on("uncaughtException", async (error) => {
  await abandon(error);
  process.exit(1);
});

async function serve(session: Session): Promise<void> {
  const { options, log, words, client, rescue, traced } = session;
  const tell = (notice: Notice) => client.postMessage(notice);
  const tellRescue = (told: Told) => rescue.postMessage(told);
  let abandoned = false;
  const report = (error: KernelError, address?: number) => {
    // What an end brings about is no error of its own.
    if (!abandoned) {
      tell({ fault: { error: wireError(error), address } });
    }
  };
  /** Shows that the thread is alive; and when it was given up it must not touch anything any more. */
  const pulse = () => {
    while (sticking);
    Atomics.add(words, Word.Beat, 1);
    if (Atomics.load(words, Word.GivenUp) !== 0) {
      throw new Error("it did not answer for too long");
    }
  };
  const beats = setInterval(pulse, BEAT_MS);
  const trace = new TraceSender((chunk) => tell({ traced: chunk }));
  trace.want(traced);
  let sweeps: NodeJS.Timeout | undefined;
  const over = () => {
    clearInterval(beats);
    clearInterval(sweeps);
    trace.end();
    abandon = async () => {};
    // After the answer to whoever closed it.
    setImmediate(() => {
      tell({ closed: true });
      tellRescue({ closed: true });
    });
  };
  let opened: TrapParts;
  try {
    if (options.cpu !== undefined) {
      pinThread(options.cpu);
    }
    opened = await openTrapParts(
      options,
      {
        log: new FaultLog(log),
        pulse,
        onMemory: (memory) => tellRescue({ memory }),
        onForget: (address) => tellRescue({ forget: address }),
        onError: report,
      },
      report,
    );
    try {
      tellRescue({ uffd: opened.mmu.uffd.files.duplicate() });
    } catch (error) {
      await opened.parts.close();
      throw error;
    }
  } catch (error) {
    over();
    tell({ failed: wireError(error) });
    return;
  }
  const { mmu, parts, stopGpu } = opened;
  abandon = async (error) => {
    abandon = () => new Promise(() => {});
    abandoned = true;
    // Before the thread ends: a native callback into a thread that is ending takes the process along.
    mmu.uffd.stopServing();
    // Without a beat: if the GPU never lets go, the service is given up.
    clearInterval(beats);
    clearInterval(sweeps);
    tell({ fatal: error.message });
    await stopGpu();
  };
  const close = async () => {
    try {
      await parts.close();
    } finally {
      over();
    }
  };
  const host = new ServiceHost({ ...parts, close });
  serveChannel(client, {
    call: (op, args, signal) => {
      pulse();
      return host.call(op, args, signal);
    },
  });
  let sweeping = false;
  sweeps = setInterval(async () => {
    if (!sweeping) {
      sweeping = true;
      // What a callback of a mirror fails with is met again by whoever asks for the memory.
      await host.sweep().catch(() => undefined);
      sweeping = false;
    }
  }, SWEEP_MS);
  const quit = () => {
    mmu.close();
    say(words, Word.LetGo);
    void stopGpu().then(() => say(words, Word.Quiet));
  };
  obey(client, { quit, trace: (wanted) => trace.want(wanted, host.spaces), words });
  tell({ ready: true });
}

function say(words: Int32Array, word: number): void {
  Atomics.store(words, word, 1);
  Atomics.notify(words, word);
}

interface Obeyed {
  readonly quit: () => void;
  readonly trace: (wanted: boolean) => void;
  readonly words: Int32Array;
}

/** What the client's thread wants outside of operations. */
function obey(client: MessagePort, { quit, trace, words }: Obeyed): void {
  client.on("message", (wish: Wish & { readonly quit?: true; readonly provoke?: "die" | "hang" | "stick" }) => {
    if (wish.trace !== undefined) {
      trace(wish.trace);
    }
    if (wish.quit) {
      quit();
    }
    sticking ||= wish.provoke === "stick";
    if (wish.provoke === "die") {
      throw new Error("a test wants it to die");
    }
    while (wish.provoke === "hang" && Atomics.load(words, Word.GivenUp) === 0);
  });
}

rememberLookups();
parentPort?.on("message", ({ open, end }: { readonly open?: Session; readonly end?: true }) => {
  if (open !== undefined) {
    void serve(open);
  }
  if (end) {
    // Here no native callback is below.
    process.exit(0);
  }
});
