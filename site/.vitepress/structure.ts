/** What is a page of the site, where it is served, and where the menus name it. */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import type { DefaultTheme } from "vitepress";

/** The checkout. */
export const ROOT = path.resolve(import.meta.dirname, "../..");

/** Markdown that is no page. The rest of the checkout's is. */
export const SOURCES = {
  excluded: ["**/node_modules/**", "**/dist/**", "coverage/**", "src/**", "test/**", "bench/**", "scripts/**"],
};

/** The menu at the side: pages by file, in the order in which one reads them. */
const CHAPTERS: readonly { readonly text: string; readonly files: readonly string[] }[] = [
  { text: "Begin", files: ["docs/index.md", "docs/start.md", "README.md", "docs/examples.md"] },
  {
    text: "Concepts",
    files: ["docs/memory.md", "docs/lives.md", "docs/modes.md", "docs/mmus.md", "docs/plain-arrays.md"],
  },
  {
    text: "How to",
    files: [
      "docs/svm.md",
      "docs/recipes.md",
      "docs/browser.md",
      "docs/tracing.md",
      "docs/drivers.md",
      "docs/conformance.md",
    ],
  },
  { text: "Look up", files: ["docs/cli.md", "docs/errors.md", "docs/comparison.md", "GLOSSARY.md", "INVARIANTS.md"] },
  { text: "Inside", files: ["ARCHITECTURE.md", "docs/schedules.md", "CONTRIBUTING.md"] },
];

/** The page that a file of the checkout becomes, as a path without its ending; undefined when it becomes none. */
export function pageOf(file: string): string | undefined {
  if (file === "examples" || /^examples\/[^/]+\.(?:ts|wgsl)$/.test(file)) {
    return file;
  }
  if (!file.endsWith(".md")) {
    return undefined;
  }
  const page = file.slice(0, -".md".length);
  return /^(?:docs|site)\//.test(page) ? page.slice("docs/".length) : page.toLowerCase();
}

/** VitePress's map from files to pages. */
export const rewrites = (file: string): string => `${pageOf(file) ?? file}.md`;

function markdownFiles(folder: string): string[] {
  return readdirSync(path.join(ROOT, folder), { withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".md"))
    .map((entry) => `${folder}/${entry.name}`);
}

function titleOf(file: string): string {
  return /^# (.*)$/m.exec(readFileSync(path.join(ROOT, file), "utf8"))?.[1]?.replaceAll("\\", "") ?? file;
}

const item = (file: string): DefaultTheme.SidebarItem => ({
  text: file === "README.md" ? "README" : titleOf(file),
  link: `/${pageOf(file)}`,
});

export function siteNav(): DefaultTheme.NavItem[] {
  return [
    { text: "Start", link: "/start" },
    { text: "Concepts", link: "/memory" },
    { text: "Recipes", link: "/recipes" },
    { text: "Errors", link: "/errors" },
    { text: "API", link: "/api/" },
  ];
}

/** Chapters, pages of docs/ that no chapter names, and the reference by module. */
export function siteSidebar(): DefaultTheme.SidebarItem[] {
  const named = new Set(CHAPTERS.flatMap(({ files }) => files));
  const others = markdownFiles("docs").filter((file) => !named.has(file));
  const chapters = [...CHAPTERS, { text: "More", files: others }]
    .filter(({ files }) => files.length > 0)
    .map(({ text, files }) => ({ text, items: files.map(item) }));
  return [...chapters, { text: "Reference", collapsed: true, items: referenceItems() }];
}

/** Each module that typedoc wrote; the module's page lists what is in it. */
function referenceItems(): DefaultTheme.SidebarItem[] {
  const api = path.join(ROOT, "site", "api");
  const modules = readdirSync(api, { recursive: true, encoding: "utf8" })
    .map((file) => file.split(path.sep).join("/"))
    .filter((file) => file.endsWith("/index.md"))
    .map((file) => file.slice(0, -"/index.md".length))
    .sort();
  return modules.map((name) => ({ text: name, link: `/api/${name}/` }));
}
