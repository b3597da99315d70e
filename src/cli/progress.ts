/** A progress bar for long work on a terminal's stderr; silent everywhere else. */
import type { SingleBar } from "cli-progress";

const SHOW_AFTER_MS = 700;

/** Where progress is shown. Stages follow each other; each has its own length. */
export interface Progress {
  /** Starts a stage of `total` units; a stage of unknown length has none. */
  stage(name: string, total?: number): void;
  /** Says the running stage in other words. */
  reword(name: string): void;
  advance(units: number): void;
  /** Takes the bar away. Idempotent. */
  stop(): void;
}

const SILENT: Progress = { stage() {}, reword() {}, advance() {}, stop() {} };

/** A bar that appears once the work has gone on for a while. */
class Bar implements Progress {
  readonly #bar: SingleBar;
  readonly #timer: NodeJS.Timeout;
  #shown = false;
  #name = "";
  #total = 0;
  #done = 0;

  constructor(bar: SingleBar) {
    this.#bar = bar;
    this.#timer = setTimeout(() => {
      this.#shown = true;
      this.#bar.start(this.#total, this.#done, { name: this.#name });
    }, SHOW_AFTER_MS);
    this.#timer.unref();
  }

  stage(name: string, total = 0): void {
    this.#name = name;
    this.#total = total;
    this.#done = 0;
    if (this.#shown) {
      this.#bar.start(total, 0, { name });
    }
  }

  reword(name: string): void {
    this.#name = name;
    this.advance(0);
  }

  advance(units: number): void {
    this.#done += units;
    if (this.#shown) {
      this.#bar.update(this.#done, { name: this.#name });
    }
  }

  stop(): void {
    clearTimeout(this.#timer);
    if (this.#shown) {
      this.#shown = false;
      this.#bar.stop();
    }
  }
}

/** The bar on a terminal; one line a stage with PAGEMIRROR_DEBUG; silence otherwise. */
export async function openProgress(stream: NodeJS.WriteStream): Promise<Progress> {
  if ((process.env.PAGEMIRROR_DEBUG ?? "") !== "") {
    return { ...SILENT, stage: (name) => void stream.write(`pagemirror: debug: ${name}\n`) };
  }
  if (!stream.isTTY || process.env.TERM === "dumb") {
    return SILENT;
  }
  const { default: cliProgress } = await import("cli-progress");
  const bar = new cliProgress.SingleBar({
    stream,
    clearOnComplete: true,
    hideCursor: false,
    format: (options, { progress, total }, payload: { name: string }) => {
      if (total === 0) {
        return `${payload.name} ...`;
      }
      const width = options.barsize ?? 30;
      const filled = Math.round(Math.min(1, progress) * width);
      const share = Math.floor(Math.min(1, progress) * 100);
      return `${payload.name} [${"#".repeat(filled)}${"-".repeat(width - filled)}] ${share} %`;
    },
  });
  return new Bar(bar);
}
