/** What a client and the thread that serves it say to each other. Values are structured-cloneable. */
import type { Errno } from "../base/index.ts";
import type { DispatchStats, KernelReflection, ParamValues, Workgroups } from "../drivers/webgpu/index.ts";
import type { AdoptableMemory, Advice, Prot } from "../mm/index.ts";
import type { AdapterReport } from "../platform/adapter.ts";

/** Options of the space and device behind a client. */
export interface ServiceOptions {
  readonly deviceMemory?: number | undefined;
  readonly adapter?: string | undefined;
  /** False: no GPU is opened, and there are no kernels. Default true. */
  readonly device?: boolean | undefined;
  /** Pages that a page fault on host memory may bring along. Default 64. */
  readonly faultAround?: number | undefined;
  /** Runs the service thread on this processor only: faults are fastest when their thread runs on the same one. */
  readonly cpu?: number | undefined;
}

/** What a file is: a path on Node, in browsers what a user dropped or picked, or a handle. */
export type FileSource = string | Blob | FileSystemFileHandle;

/** A mapping as it is told to the client. */
export interface MappingInfo {
  readonly id: number;
  readonly start: number;
  readonly length: number;
  readonly name: string;
  /** Where plain arrays find it; absent for one that crosses a multiple of 4 GiB of its object, or has memory of several. */
  readonly view: { readonly buffer: SharedArrayBuffer; readonly byteOffset: number } | undefined;
}

/** A bound range. */
export interface WireRange {
  readonly id: number;
  readonly offset: number;
  readonly length: number;
}

/** Every operation: its arguments and its result. */
export interface Operations {
  hello: [args: undefined, result: { readonly adapter: AdapterReport | undefined; readonly log: SharedArrayBuffer }];
  mmap: [
    args: {
      readonly length: number;
      readonly prot?: Prot | undefined;
      readonly shared?: boolean | undefined;
      readonly name?: string | undefined;
      readonly object?: number | undefined;
      readonly offset?: number | undefined;
      readonly addr?: number | undefined;
      readonly fixed?: boolean | undefined;
    },
    result: MappingInfo,
  ];
  adopt: [
    args: {
      readonly memory: AdoptableMemory;
      readonly maximum?: number | undefined;
      readonly name?: string | undefined;
    },
    result: MappingInfo,
  ];
  munmap: [args: WireRange, result: undefined];
  mprotect: [args: WireRange & { readonly prot: Prot }, result: undefined];
  madvise: [args: WireRange & { readonly advice: Advice }, result: undefined];
  msync: [args: WireRange, result: undefined];
  populate: [args: WireRange, result: undefined];
  read: [args: WireRange, result: Uint8Array];
  write: [args: WireRange & { readonly bytes: Uint8Array }, result: undefined];
  lease: [args: WireRange & { readonly mode: "r" | "rw" }, result: number];
  unlease: [args: number, result: undefined];
  openFile: [args: { readonly file: FileSource; readonly write?: boolean | undefined }, result: ObjectInfo];
  openUrl: [
    args: { readonly url: string; readonly headers?: Readonly<Record<string, string>> | undefined },
    result: ObjectInfo,
  ];
  putObject: [args: number, result: undefined];
  kernel: [
    args: { readonly wgsl: string; readonly entryPoint?: string | undefined; readonly name?: string | undefined },
    result: { readonly id: number; readonly name: string; readonly reflection: KernelReflection },
  ];
  dispatch: [
    args: {
      readonly kernel: number;
      readonly bind: Readonly<Record<string, WireRange>>;
      readonly params?: ParamValues | undefined;
      readonly svm: boolean;
      readonly workgroups: Workgroups;
      readonly timeoutMs?: number | undefined;
    },
    result: DispatchStats,
  ];
  counts: [args: undefined, result: { readonly faults: number; readonly pagesShown: number; readonly errors: number }];
  close: [args: undefined, result: undefined];
}

/** An opened file or URL. */
export interface ObjectInfo {
  readonly id: number;
  readonly pages: number;
}

export type Operation = keyof Operations;

/** What carries operations: a port to another thread, or a host in this one. */
export interface Channel {
  call<K extends Operation>(op: K, args: Operations[K][0]): Promise<Operations[K][1]>;
}

/** An error on its way to another thread. */
export interface WireError {
  readonly code?: Errno | undefined;
  readonly op: string;
  readonly why: string;
}
