#!/usr/bin/env node
/**
 * The command `pagemirror`. Knows the arguments only: the work, and with it the GPU, is imported when a command runs, so
 * that `--help` is quick.
 */
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { setBugHandler } from "../base/index.ts";
import type { CheckArguments } from "./check.ts";
import { describeFailure, failureJson, failureLine, UsageError } from "./errors.ts";
import type { RunArguments } from "./run-plan.ts";

const RUN_EXAMPLES = `
A mapping binds to the WGSL variable of its name, or is followed by address (see below):
  NAME=PATH       or NAME=PATH:r, the file, read-only
  NAME=PATH:cow   a private copy that the kernel may write; the file stays as it is
  NAME=PATH:rw    written back to the file when the run succeeds; the file is untouched when it fails
  NAME=URL        what an http:// or https:// server sends, read-only, fetched by ranges as it is needed; the server must
                  support ranges, and the object must not change meanwhile
  NAME=new:SIZE   zeros
Files of any length work: the kernel sees zeros up to the next 16 bytes. A WGSL array of fixed size binds just that much
of a mapping, a runtime-sized array all of it. Sizes take K, M and G. Ctrl-C leaves no partial output file.

A kernel that calls pm_ functions (pm_load_u32 and the like) follows addresses through all mappings, whatever their names,
and they may be many times as large as --device-memory: what it misses is brought, and the work goes on. Addresses count
4-byte words. --set gives them to it:
  --set NAME=@MAPPING   the address of a mapping
  --set NAME=#MAPPING   its length in bytes
Such a kernel needs --workgroups. --mode is found by itself: svm for such a kernel, bind for every other one; a --mode that
does not fit the kernel is an error.

Exit status: 0 done; 1 failed, with one line on stderr; 2 wrong usage.

Example, the histogram of a file's bytes as 256 little-endian u32:
  pagemirror run examples/histogram.wgsl --map data=data.bin --map counts=new:1K \\
    --set bytes=$(stat -c %s data.bin) --workgroups 256 --out counts=counts.bin

Example, a search in a text of any size on a device that may use 64 MiB, a workgroup for each 16 KiB:
  pagemirror run examples/grep.wgsl --device-memory 64M --map text=big.log --map needle=needle.bin \\
    --map total=new:4 --map pieces=new:16M --set text=@text --set bytes=#text --set needle=@needle \\
    --set needle_bytes=#needle --set total=@total --set pieces=@pieces --workgroups 65535 --out total=total.bin
`;

const collect = (value: string, former: readonly string[] = []): readonly string[] => [...former, value];

function packageVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

function buildProgram(): Command {
  const program = new Command("pagemirror")
    .description("Runs WGSL kernels over files through shared virtual memory.")
    .version(packageVersion())
    .exitOverride()
    .configureOutput({ writeErr: () => {}, outputError: () => {} })
    .showSuggestionAfterError();
  program
    .command("run")
    .description("run a WGSL compute kernel over mapped files")
    .argument("<KERNEL.wgsl>", "the kernel")
    .option(
      "--map <NAME=PATH[:r|cow|rw]|NAME=URL|NAME=new:SIZE>",
      "map a file, a URL, or new zeros, for the variable NAME",
      collect,
    )
    .option(
      "--set <NAME=VALUE|NAME=@MAPPING|NAME=#MAPPING>",
      "fill a member of the uniform struct in variable params: numbers, a mapping's address, its length in bytes",
      collect,
    )
    .option(
      "--workgroups <X[,Y[,Z]]>",
      "workgroups to dispatch (default in bind mode: one invocation an element of the longest runtime-sized array, along x)",
    )
    .option("--entry <NAME>", "the @compute entry point, when the kernel has several")
    .option("--out <NAME=PATH>", "write a mapping to a file when the run succeeds", collect)
    .option("--mode <MODE>", "how the kernel sees mappings: bind or svm (default: as the kernel needs it)")
    .option("--mmu <MMU>", "how the CPU's accesses are seen: software, userfaultfd or auto", "software")
    .option("--device-memory <SIZE>", "the most that may be allocated on the device")
    .option("--adapter <NAME>", "system, swiftshader, or a part of an adapter's name")
    .option("--stats", "print figures of the run")
    .option("--json", "print one JSON object with the figures")
    .option("--maps", "print what is mapped when the kernel has run, and where its pages are, as /proc/PID/smaps does")
    .option("--trace <FILE>", "write what happens to a file for pagemirror inspect, Perfetto or chrome://tracing")
    .option("--inspect", "show what happens in a browser while it happens: a page on this machine only")
    .addHelpText("after", RUN_EXAMPLES)
    .action(async (kernel: string, options: RunArguments) => {
      const { runCommand } = await import("./run.ts");
      await runCommand(kernel, options);
    });
  program
    .command("info")
    .description("what works here: MMU back ends, adapter, limits, and the remedy for what does not")
    .option("--json", "print one JSON object")
    .action(async ({ json }: { json?: boolean }) => {
      const { gatherInfo, infoText } = await import("./info.ts");
      const report = await gatherInfo(packageVersion());
      process.stdout.write(json === true ? `${JSON.stringify(report)}\n` : infoText(report));
    });
  program
    .command("inspect")
    .description(
      "show a trace in a browser: prints the address of a page on this machine only, and serves it until Ctrl-C",
    )
    .argument("<TRACE>", "a file that run --trace wrote")
    .action(async (trace: string) => {
      const { inspectCommand } = await import("./inspect.ts");
      await inspectCommand(trace);
    });
  program
    .command("maps")
    .description("print what was mapped after the last dispatch of a trace, and where its pages were, as /proc does")
    .argument("<TRACE>", "a file that run --trace wrote")
    .action(async (trace: string) => {
      const { mapsCommand } = await import("./maps.ts");
      await mapsCommand(trace);
    });
  program
    .command("check")
    .description("explore interleavings of the core and of a driver, and show the shortest that fails")
    .option(
      "--driver <NAME>",
      "dmirror, the reference driver, or webgpu, over a GPU without hardware (default: dmirror)",
    )
    .option("--schedules <N>", "random schedules a scenario (default: 50)")
    .option("--seed <S>", "what the random choices depend on (default: 1)")
    .option("--exhaustive <LIMIT>", "instead: all schedules that may end differently, up to so many a scenario")
    .option("--scenario <NAME>", "only this scenario; may be repeated (default: all of the driver)", collect)
    .option("--replay <SCHEDULE>", "run a schedule that was printed, and print it again")
    .option("--list", "print the names of the scenarios")
    .option("--json", "print one JSON object")
    .action(async (options: CheckArguments) => {
      const { checkCommand } = await import("./check.ts");
      if (!(await checkCommand(options))) {
        process.exitCode = 1;
      }
    });
  return program;
}

/** Commander's own complaint as ours; undefined for `--help` and `--version`, which are no failure. */
function usageError(error: CommanderError, argv: readonly string[]): UsageError | undefined {
  if (error.exitCode === 0) {
    return undefined;
  }
  if (error.code === "commander.help") {
    return new UsageError("name a command: pagemirror run KERNEL.wgsl, or pagemirror info; see pagemirror --help");
  }
  const command = ["run", "info", "inspect", "maps", "check"].find((name) => name === argv[0]);
  const help = `pagemirror ${command === undefined ? "" : `${command} `}--help`;
  const message = error.message
    .replace(/^error: /, "")
    .replaceAll("\n", " ")
    .replace(/\.$/, "");
  return new UsageError(`${message}; see ${help}`);
}

async function main(argv: readonly string[]): Promise<number> {
  const debug = (process.env.PAGEMIRROR_DEBUG ?? "") !== "";
  setBugHandler((bug) => process.stderr.write(`pagemirror: warning: ${debug ? bug.stack : bug.message}\n`));
  try {
    await buildProgram().parseAsync([...argv], { from: "user" });
    return Number(process.exitCode ?? 0);
  } catch (thrown) {
    const error = thrown instanceof CommanderError ? usageError(thrown, argv) : thrown;
    if (error === undefined) {
      return 0;
    }
    const failure = describeFailure(error);
    process.stderr.write(`${failureLine(failure)}\n`);
    if (debug && error instanceof Error) {
      process.stderr.write(`${error.stack}\n`);
    }
    if (argv.includes("--json")) {
      process.stdout.write(`${failureJson(failure)}\n`);
    }
    return failure.exitStatus;
  }
}

// A reader that has seen enough (`| head`) is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  process.exit(error.code === "EPIPE" ? 0 : 1);
});
process.exitCode = await main(process.argv.slice(2));
