/** A page for each example: its source. */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

const FOLDER = path.resolve(import.meta.dirname, "../../examples");

export default {
  watch: ["../../examples/*"],
  paths: () =>
    readdirSync(FOLDER)
      .filter((name) => /\.(?:ts|wgsl)$/.test(name))
      .map((name) => ({
        params: { name, title: `examples/${name}` },
        content: `\`\`\`${path.extname(name).slice(1)}\n${readFileSync(path.join(FOLDER, name), "utf8")}\`\`\`\n`,
      })),
};
