/** How a run goes, and what came of it. */
import { bytesText, countText, timeText } from "../../../inspector/src/text.ts";
import { Chart } from "./chart.tsx";
import type { Outcome } from "./messages.ts";
import type { Run } from "./run.ts";

const byteName = (byte: number) =>
  byte > 32 && byte < 127 ? String.fromCharCode(byte) : `0x${byte.toString(16).padStart(2, "0")}`;

const placeName = (size: number) => (bar: number) => bytesText(Math.round((bar / 255) * size));

export function Results({ run }: { readonly run: Run }) {
  const { outcome, opened, progress, trouble, job } = run;
  return (
    <section class="card" aria-live="polite" data-testid="results">
      {trouble === undefined ? null : (
        <p class="failure" role="alert">
          {trouble}
        </p>
      )}
      {outcome === undefined && trouble === undefined ? (
        <label class="progress">
          {progress.what} …
          <progress value={progress.done} max={1} />
        </label>
      ) : null}
      {outcome === undefined ? null : <Answer outcome={outcome} run={run} />}
      {opened === undefined ? null : (
        <dl class="facts">
          <dt>the file</dt>
          <dd>{bytesText(job.file.size)}</dd>
          <dt>bound at once at most</dt>
          <dd>{bytesText(opened.bindingLimit)}</dd>
          <dt>GPU memory used</dt>
          <dd>{bytesText(job.deviceMemory)}</dd>
          {outcome === undefined ? null : <Figures outcome={outcome} />}
          <dt>adapter</dt>
          <dd>{opened.adapter}</dd>
        </dl>
      )}
    </section>
  );
}

function Answer({ outcome, run }: { readonly outcome: Outcome; readonly run: Run }) {
  const { kernel, text, file } = run.job;
  const { counts, matches, same } = outcome;
  return (
    <>
      <h2>
        {kernel === "bytes"
          ? `${countText(counts.filter((count) => count > 0).length)} different bytes`
          : `“${text}” ${countText(matches)} times`}
      </h2>
      <p class={same ? "check" : "failure"} data-testid="check">
        {same ? "✓ The CPU comes to the same result." : "The CPU comes to another result."}
      </p>
      {kernel === "bytes" ? (
        <Chart counts={counts} label="how often each byte occurs" nameOf={byteName} />
      ) : (
        <Chart counts={counts} label="where it occurs in the file" nameOf={placeName(file.size)} />
      )}
    </>
  );
}

function Figures({ outcome }: { readonly outcome: Outcome }) {
  return (
    <>
      <dt>brought to the GPU</dt>
      <dd>{bytesText(outcome.bytesToDevice)}</dd>
      <dt>rounds</dt>
      <dd>{countText(outcome.rounds)}</dd>
      <dt>time, with all transfers</dt>
      <dd>{timeText(outcome.gpuMs * 1000)}</dd>
      <dt>the CPU alone, from the file</dt>
      <dd>{timeText(outcome.cpuMs * 1000)}</dd>
    </>
  );
}
