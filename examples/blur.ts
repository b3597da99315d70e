/**
 * Blurs a PNG file on the GPU and checks the result against the CPU.
 *
 *     npx tsx examples/blur.ts INPUT.png OUTPUT.png [RADIUS]
 *
 * Without arguments it draws a picture, and blurs that into blur.png in the current folder.
 */
import { readFile, writeFile } from "node:fs/promises";
import { PNG } from "pngjs";
import { open } from "../src/node.ts"; // in your own code: from "pagemirror/node"
import "./one-line.ts";

interface Picture {
  readonly width: number;
  readonly height: number;
  /** RGBA, four bytes a pixel. */
  readonly data: Uint8Array;
}

/** Circles on a gradient. */
function drawPicture(width: number, height: number): Picture {
  const data = new Uint8Array(width * height * 4);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const ring = Math.hypot(x - width / 2, y - height / 2) % 32 < 16;
      data.set([(x * 255) / width, (y * 255) / height, ring ? 255 : 0, 255], (y * width + x) * 4);
    }
  }
  return { width, height, data };
}

/** What the kernel computes, on the CPU. */
function blurOnCpu({ width, height, data }: Picture, radius: number): Uint8Array {
  const out = new Uint8Array(data.length);
  const count = (2 * radius + 1) ** 2;
  const clamp = (n: number, most: number) => Math.min(Math.max(n, 0), most);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let channel = 0; channel < 4; channel++) {
        let sum = 0;
        for (let dy = -radius; dy <= radius; dy++) {
          for (let dx = -radius; dx <= radius; dx++) {
            sum += data[(clamp(y + dy, height - 1) * width + clamp(x + dx, width - 1)) * 4 + channel] ?? 0;
          }
        }
        out[(y * width + x) * 4 + channel] = Math.floor((sum + Math.floor(count / 2)) / count);
      }
    }
  }
  return out;
}

const [input, output = "blur.png", radiusText = "3"] = process.argv.slice(2);
const radius = Number(radiusText);
const picture: Picture = input === undefined ? drawPicture(320, 200) : PNG.sync.read(await readFile(input));
const { width, height, data } = picture;

await using pm = await open();
const kernel = await pm.device.kernel(await readFile(new URL("blur.wgsl", import.meta.url), "utf8"));
const source = await pm.mm.mmap({ length: data.length, name: "source" });
const target = await pm.mm.mmap({ length: data.length, name: "target" });
await source.write(0, data);
const stats = await kernel.dispatch({
  bind: { source, target_image: target },
  params: { size: [width, height], radius },
  workgroups: [Math.ceil(width / 8), Math.ceil(height / 8)],
});

const blurred = await target.read(0, data.length);
const png = new PNG({ width, height });
png.data.set(blurred);
await writeFile(output, PNG.sync.write(png));

const expected = blurOnCpu(picture, radius);
const same = blurred.every((byte, i) => byte === expected[i]);
console.log(`${output}: ${width} x ${height} pixels, radius ${radius}, on ${pm.adapter.name}`);
console.log(`${stats.bytesToDevice} bytes to the device`);
console.log(same ? "OK: equal to the CPU's result" : "FAILED: the CPU's result differs");
process.exitCode = same ? 0 : 1;
