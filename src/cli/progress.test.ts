import { Writable } from "node:stream";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { openProgress } from "./progress.ts";

/** A terminal, or not, that remembers what it shows. */
function fakeStream(isTTY: boolean): { stream: NodeJS.WriteStream; shown: () => string } {
  let text = "";
  const stream = new Writable({
    write(chunk, _encoding, done) {
      text += chunk;
      done();
    },
  });
  return { stream: Object.assign(stream, { isTTY, columns: 80 }) as unknown as NodeJS.WriteStream, shown: () => text };
}

describe("progress", () => {
  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubEnv("TERM", "xterm");
    vi.stubEnv("PAGEMIRROR_DEBUG", "");
  });

  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllEnvs();
  });

  test("shows nothing where there is no terminal", async () => {
    const { stream, shown } = fakeStream(false);
    const progress = await openProgress(stream);
    progress.stage("writing", 10);
    vi.advanceTimersByTime(10_000);
    progress.advance(5);
    progress.stop();
    expect(shown()).toBe("");
  });

  test("shows nothing for short work on a terminal", async () => {
    const { stream, shown } = fakeStream(true);
    const progress = await openProgress(stream);
    progress.stage("writing", 10);
    progress.stop();
    vi.advanceTimersByTime(10_000);
    expect(shown()).toBe("");
  });

  test("shows stage and share once the work goes on", async () => {
    const { stream, shown } = fakeStream(true);
    const progress = await openProgress(stream);
    progress.stage("opening");
    progress.stage("writing", 10);
    progress.advance(5);
    vi.advanceTimersByTime(1000);
    expect(shown()).toMatch(/writing \[#+-+\] 50 %/);
    progress.stop();
    progress.stop();
  });

  test("names each stage with PAGEMIRROR_DEBUG, terminal or not", async () => {
    vi.stubEnv("PAGEMIRROR_DEBUG", "1");
    const { stream, shown } = fakeStream(false);
    (await openProgress(stream)).stage("writing", 10);
    expect(shown()).toBe("pagemirror: debug: writing\n");
  });
});
