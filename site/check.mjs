/** Follows the links of a built site, and makes sure that looking at it asks nothing of the network. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";

const IDS = /\sid="([^"]+)"/g;
const LINKS = /<a\s[^>]*?href="([^"]*)"/g;
// Anything that a browser fetches by itself.
const FETCHED = /<(?:script|img|iframe|source|video|audio|embed)\s[^>]*?src="([^"]*)"|<link\s[^>]*?href="([^"]*)"/g;

const plainText = (text) => text.replaceAll("&amp;", "&").replaceAll("&#39;", "'");
const matches = (text, pattern) => [...text.matchAll(pattern)].map((match) => plainText(match[1] ?? match[2] ?? ""));

/** What is wrong in a folder of pages, and how much was looked at. */
export function checkSite(dist) {
  const files = readdirSync(dist, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".html"));
  const pages = new Map(
    files.map((file) => {
      const html = readFileSync(path.join(dist, file), "utf8");
      return [`/${file.split(path.sep).join("/")}`, { html, ids: new Set(matches(html, IDS).map(decodeURIComponent)) }];
    }),
  );
  const problems = [];
  let links = 0;
  for (const [from, { html }] of pages) {
    for (const href of matches(html, LINKS)) {
      links++;
      const problem = problemOf(href, from, pages, dist);
      if (problem !== undefined) {
        problems.push(`${from}: ${href}: ${problem}`);
      }
    }
    for (const url of matches(html, FETCHED)) {
      if (/^(?:https?:)?\/\//.test(url)) {
        problems.push(`${from}: ${url}: a page may not fetch anything from elsewhere`);
      } else if (url.startsWith("/") && !existsSync(path.join(dist, url))) {
        problems.push(`${from}: ${url}: there is no such file`);
      }
    }
  }
  return { pages: pages.size, links, problems };
}

function problemOf(href, from, pages, dist) {
  const url = new URL(href, `http://site${from}`);
  if (url.host !== "site") {
    return undefined;
  }
  const file = decodeURIComponent(url.pathname.endsWith("/") ? `${url.pathname}index.html` : url.pathname);
  const page = pages.get(file);
  if (page === undefined) {
    return existsSync(path.join(dist, file)) ? undefined : "there is no such page";
  }
  const id = decodeURIComponent(url.hash.slice(1));
  return id === "" || page.ids.has(id) ? undefined : "the page has no such heading";
}
