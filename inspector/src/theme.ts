/** Colours of what canvases draw; everything else takes its own from the style sheet. */
import type { PageState } from "../../src/inspect/index.ts";

export interface Theme {
  readonly text: string;
  readonly faint: string;
  readonly line: string;
  readonly cursor: string;
  readonly brush: string;
  readonly states: Readonly<Record<PageState, string>>;
  /** By lane, in turn. */
  readonly lanes: readonly string[];
}

const LIGHT: Theme = {
  text: "#1d2530",
  faint: "#687385",
  line: "#dde2ea",
  cursor: "#d33f49",
  brush: "rgba(47, 111, 196, 0.18)",
  states: {
    unmapped: "#f1f3f6",
    absent: "#d3d9e2",
    cpu: "#5b9bd9",
    written: "#e0892b",
    copy: "#3fa578",
    device: "#8460cf",
    migrating: "#d9be1e",
    poisoned: "#d33f49",
  },
  lanes: ["#8460cf", "#5b9bd9", "#d9652b", "#3fa578", "#c4569a", "#8a7a1f", "#687385"],
};

const DARK: Theme = {
  text: "#e4e9f0",
  faint: "#97a3b5",
  line: "#2c3542",
  cursor: "#ff6b74",
  brush: "rgba(110, 168, 245, 0.25)",
  states: {
    unmapped: "#1a2029",
    absent: "#36414f",
    cpu: "#4f93d8",
    written: "#e5943d",
    copy: "#47b587",
    device: "#9a7be0",
    migrating: "#e2ca3a",
    poisoned: "#ef5f68",
  },
  lanes: ["#9a7be0", "#4f93d8", "#e5793d", "#47b587", "#d873b2", "#b5a53a", "#97a3b5"],
};

/** What each state means, for the legend. */
export const STATE_TEXT: Readonly<Record<PageState, string>> = {
  unmapped: "unmapped",
  absent: "mapped, nothing there yet",
  cpu: "the CPU's, read",
  written: "the CPU's, written",
  copy: "read copy on a device",
  device: "on a device only",
  migrating: "migrating",
  poisoned: "lost",
};

export function isDark(): boolean {
  const chosen = document.documentElement.dataset.theme;
  return chosen === undefined ? matchMedia("(prefers-color-scheme: dark)").matches : chosen === "dark";
}

export function theme(): Theme {
  return isDark() ? DARK : LIGHT;
}
