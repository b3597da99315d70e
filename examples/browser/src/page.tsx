/** The page: a file, a kernel, what came of it, and the inspector beside it. */
import { useEffect, useRef, useState } from "preact/hooks";
import { App as Inspector } from "../../../inspector/src/app.tsx";
import { bytesText } from "../../../inspector/src/text.ts";
import { isDark } from "../../../inspector/src/theme.ts";
import { Results } from "./results.tsx";
import { Run } from "./run.ts";
import { makeSample } from "./sample.ts";

const MEMORY_MIB = [16, 32, 64, 128];

export function Page() {
  const [file, setFile] = useState<File | undefined>(undefined);
  const [kernel, setKernel] = useState<"bytes" | "find">("bytes");
  const [text, setText] = useState("mirror");
  const [memory, setMemory] = useState(32);
  const [run, setRun] = useState<Run | undefined>(undefined);
  const [, setVersion] = useState(0);
  const [over, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const busy = run !== undefined && !run.isOver;

  useDrops(setOver, (dropped) => !busy && setFile(dropped));

  const begin = (event: Event) => {
    event.preventDefault();
    if (file === undefined) {
      input.current?.click();
      return;
    }
    const job = { file, kernel, text, deviceMemory: memory * 2 ** 20 };
    setRun(new Run(job, () => setVersion((n) => n + 1)));
  };
  return (
    <main class={over ? "over" : ""}>
      <header>
        <h1>A kernel over your whole file</h1>
        <button type="button" onClick={switchTheme} aria-label="Switch between light and dark">
          ◐
        </button>
      </header>
      <p class="lead">
        The file is mapped, not loaded. A WebGPU kernel follows addresses in it, and the pages that it misses are
        brought while it runs. Nothing leaves this computer.
      </p>
      <div class="columns">
        <form class="side" onSubmit={begin}>
          <section class="card">
            <label class="drop" data-testid="drop">
              <input
                ref={input}
                type="file"
                disabled={busy}
                onChange={({ currentTarget }) => setFile(currentTarget.files?.[0] ?? file)}
              />
              <b>{file === undefined ? "Drop a file here" : file.name}</b>
              <span class="faint">{file === undefined ? "or choose one" : bytesText(file.size)}</span>
            </label>
            <button type="button" class="link" disabled={busy} onClick={() => setFile(makeSample())}>
              No large file at hand? Make one of 160 MiB.
            </button>
          </section>
          <section class="card fields">
            <fieldset disabled={busy}>
              <legend>Kernel</legend>
              <label class="choice">
                <input type="radio" name="kernel" checked={kernel === "bytes"} onChange={() => setKernel("bytes")} />
                Count bytes
              </label>
              <label class="choice">
                <input type="radio" name="kernel" checked={kernel === "find"} onChange={() => setKernel("find")} />
                Find text
              </label>
              {kernel === "find" ? (
                <input
                  type="text"
                  aria-label="Text to find"
                  value={text}
                  required
                  maxLength={200}
                  onInput={({ currentTarget }) => setText(currentTarget.value)}
                />
              ) : null}
            </fieldset>
            <fieldset disabled={busy}>
              <legend>GPU memory to use</legend>
              {MEMORY_MIB.map((mib) => (
                <label class="choice" key={mib}>
                  <input type="radio" name="memory" checked={memory === mib} onChange={() => setMemory(mib)} />
                  {mib} MiB
                </label>
              ))}
            </fieldset>
            {busy ? (
              <button type="button" class="main" onClick={() => run.stop()}>
                Stop
              </button>
            ) : (
              <button type="submit" class="main">
                {file === undefined ? "Choose a file" : "Run the kernel"}
              </button>
            )}
          </section>
          {run === undefined ? null : <Results run={run} />}
        </form>
        <div class="watch">
          {run === undefined ? (
            <section class="card empty">
              <h2>Inspector</h2>
              <p class="faint">Run a kernel to see each page of the file: where it is, when it came, and why.</p>
            </section>
          ) : (
            <Inspector key={run.startedAt} connect={run.connect} embedded />
          )}
        </div>
      </div>
    </main>
  );
}

function switchTheme(): void {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
}

/** The whole page takes files. */
function useDrops(setOver: (over: boolean) => void, onFile: (file: File) => void): void {
  const latest = useRef(onFile);
  latest.current = onFile;
  useEffect(() => {
    const drag = (event: DragEvent) => {
      event.preventDefault();
      setOver(event.type === "dragover");
    };
    const drop = (event: DragEvent) => {
      drag(event);
      const dropped = event.dataTransfer?.files[0];
      if (dropped !== undefined) {
        latest.current(dropped);
      }
    };
    addEventListener("dragover", drag);
    addEventListener("dragleave", drag);
    addEventListener("drop", drop);
    return () => {
      removeEventListener("dragover", drag);
      removeEventListener("dragleave", drag);
      removeEventListener("drop", drop);
    };
  }, [setOver]);
}
