/** The analysis of a stretch of time, made beside everything else: the page answers meanwhile. */
import { useEffect, useRef, useState } from "preact/hooks";
import { type Analysis, analysing, rowAt, type SpaceModel } from "../../src/inspect/index.ts";
import type { Span } from "./timeline.tsx";

/** Milliseconds of work in one go: half a frame. */
const SLICE = 8;
/** Milliseconds for which a view must have stood still: who turns a wheel does not read meanwhile. */
const SETTLE = 80;

/** The last analysis that is done: undefined before the first. What comes while one is made waits for it, but for a new `span`. */
export function useAnalysis(model: SpaceModel, span: Span | undefined, version: number): Analysis | undefined {
  const [analysis, setAnalysis] = useState<Analysis | undefined>(undefined);
  /** The version that is being looked at, and the latest. */
  const [busy, latest] = [useRef<number | undefined>(undefined), useRef(version)];
  latest.current = version;
  const begin = useRef<() => void>(() => undefined);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    begin.current = () => {
      const { store } = model;
      const [from, to] = span === undefined ? [0, store.count] : [rowAt(store, span.from), rowAt(store, span.to)];
      const steps = analysing(model, from, to);
      busy.current = latest.current;
      const step = () => {
        const until = performance.now() + SLICE;
        let made = steps.next();
        while (!made.done && performance.now() < until) {
          made = steps.next();
        }
        if (!made.done) {
          timer = setTimeout(step);
          return;
        }
        setAnalysis(made.value);
        const isOld = busy.current !== latest.current;
        busy.current = undefined;
        if (isOld) {
          begin.current();
        }
      };
      timer = setTimeout(step, SETTLE);
    };
    begin.current();
    return () => {
      clearTimeout(timer);
      busy.current = undefined;
    };
  }, [model, span]);
  useEffect(() => {
    if (busy.current === undefined) {
      begin.current();
    }
  }, [version]);
  return analysis;
}
