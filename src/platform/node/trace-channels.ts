/** Trace events on node:diagnostics_channel, for whoever has subscribed already or does so later. */
import { type Channel, channel } from "node:diagnostics_channel";
import { listenToTrace, TRACE_NAMES, type TraceName } from "../../base/index.ts";

/** Name of a tracepoint's channel: `pagemirror:gpu.upload`. */
export function traceChannelName(name: TraceName): string {
  return `pagemirror:${name}`;
}

/**
 * Publishes every event as `{ …fields, at, duration }` on the channel of its tracepoint that has subscribers, until the
 * returned function is called.
 */
export function publishTrace(): () => void {
  const channels = new Map<TraceName, Channel>(TRACE_NAMES.map((name) => [name, channel(traceChannelName(name))]));
  return listenToTrace(({ name, fields, at, duration }) => {
    const to = channels.get(name);
    if (to?.hasSubscribers) {
      to.publish({ ...fields, at, duration });
    }
  });
}
