/** What a client and the thread that serves it say to each other. Values are structured-cloneable. */
import type { Errno } from "../base/index.ts";
import type {
  CompileOptions,
  DispatchOptions,
  DispatchStats,
  KernelReflection,
  SvmAdvice,
  WebGpuDeviceStats,
  WebGpuKernel,
} from "../drivers/webgpu/index.ts";
import type {
  AddressSpaceStats,
  AdoptableMemory,
  AdoptOptions,
  Advice,
  MmapOptions,
  MremapOptions,
  PinMode,
  Prot,
} from "../mm/index.ts";
import type { AdapterReport } from "../platform/adapter.ts";
import type { OpenUrlOptions } from "../platform/http/index.ts";
import type { TracedChunk } from "./trace-relay.ts";

/** An address space of the service: 0 is the one that it opened with. */
export type SpaceId = number;

/** A range of an address space; `name` is for messages. */
export interface WireRange {
  readonly space: SpaceId;
  readonly start: number;
  readonly length: number;
  readonly name: string;
}

/** A mapping as it is told to the client. */
export interface MappingInfo {
  readonly start: number;
  readonly length: number;
  readonly name: string;
  /** Where plain arrays find it; absent for one that crosses a multiple of 4 GiB of its object, or has memory of several. */
  readonly view: { readonly buffer: SharedArrayBuffer; readonly byteOffset: number } | undefined;
}

/** Options of mmap that a client may give. Those that are for drivers stay with the service's side. */
export type ClientMmapOptions = Omit<MmapOptions, "object" | "vmFlags">;

/** What a file is: a path on Node, in browsers what a user dropped or picked, or a handle. */
export type FileSource = string | Blob | FileSystemFileHandle;

/** Options of opening a file. */
export interface ClientFileOptions {
  /** Open for writing too, for shared writable mappings. */
  readonly write?: boolean | undefined;
}

/** Options of opening a URL that can be sent. */
export type ClientUrlOptions = Omit<OpenUrlOptions, "signal" | "fetch">;

/** Counts of page faults since the service was opened. */
export interface ServiceCounts {
  readonly faults: number;
  readonly pagesShown: number;
  readonly errors: number;
}

type InSpace<T> = T & { readonly space: SpaceId };

/** Every operation: its arguments and its result. */
export interface Operations {
  hello: [args: undefined, result: { readonly adapter: AdapterReport | undefined; readonly log: SharedArrayBuffer }];
  mmap: [args: InSpace<ClientMmapOptions> & { readonly object?: number | undefined }, result: MappingInfo];
  adopt: [args: InSpace<AdoptOptions> & { readonly memory: AdoptableMemory }, result: MappingInfo];
  mapping: [args: Omit<WireRange, "name">, result: MappingInfo];
  mremap: [
    args: InSpace<MremapOptions> & { readonly start: number; readonly oldLength: number; readonly newLength: number },
    result: MappingInfo,
  ];
  munmap: [args: WireRange, result: undefined];
  mprotect: [args: WireRange & { readonly prot: Prot }, result: undefined];
  madvise: [args: WireRange & { readonly advice: Advice }, result: undefined];
  msync: [args: WireRange, result: undefined];
  populate: [args: WireRange, result: undefined];
  read: [args: WireRange, result: Uint8Array];
  write: [args: WireRange & { readonly bytes: Uint8Array }, result: undefined];
  /** `present`: bytes of the range that are there; an adopted memory may have to grow into the rest. */
  lease: [
    args: WireRange & { readonly mode: PinMode; readonly longTerm?: boolean | undefined; readonly present: number },
    result: number,
  ];
  unlease: [args: number, result: undefined];
  fork: [args: SpaceId, result: SpaceId];
  exit: [args: SpaceId, result: undefined];
  stats: [args: SpaceId, result: AddressSpaceStats];
  smaps: [args: SpaceId, result: string];
  openFile: [args: ClientFileOptions & { readonly file: FileSource }, result: ObjectInfo];
  openUrl: [args: ClientUrlOptions & { readonly url: string }, result: ObjectInfo];
  putObject: [args: number, result: undefined];
  kernel: [
    args: Omit<CompileOptions, "signal"> & { readonly wgsl: string },
    result: {
      readonly id: number;
      readonly name: string;
      readonly mode: WebGpuKernel["mode"];
      readonly reflection: KernelReflection;
    },
  ];
  dispatch: [
    args: Omit<DispatchOptions, "bind" | "mm" | "signal"> & {
      readonly kernel: number;
      readonly bind: Readonly<Record<string, WireRange>>;
      readonly space: SpaceId | undefined;
    },
    result: DispatchStats,
  ];
  prefetch: [
    args: WireRange & { readonly write?: boolean | undefined; readonly timeoutMs?: number | undefined },
    result: number,
  ];
  advise: [args: WireRange & { readonly advice: SvmAdvice }, result: undefined];
  deviceStats: [args: undefined, result: WebGpuDeviceStats];
  counts: [args: undefined, result: ServiceCounts];
  close: [args: undefined, result: undefined];
}

/** An opened file or URL. */
export interface ObjectInfo {
  readonly id: number;
  readonly pages: number;
  /** Bytes of the file or the URL. */
  readonly length: number;
}

/** The name of an operation. */
export type Operation = keyof Operations;

/** What carries operations: a port to another thread, or a host in this one. */
export interface Channel {
  call<K extends Operation>(op: K, args: Operations[K][0], signal?: AbortSignal): Promise<Operations[K][1]>;
}

/** An error on its way to another thread. */
export interface WireError {
  readonly code?: Errno | undefined;
  readonly op: string;
  readonly why: string;
}

/** What a service tells without being asked. */
export interface Notice {
  /** Something went wrong that no call reports. `address` is of the address space, where it has one. */
  readonly fault?: { readonly error: WireError; readonly address: number | undefined };
  readonly traced?: TracedChunk;
  /** The service cannot go on. */
  readonly fatal?: string;
  /** It was opened, or could not be. */
  readonly ready?: true;
  readonly failed?: WireError;
  /** The last that it says. */
  readonly closed?: true;
}

/** What a client wants outside of operations. */
export interface Wish {
  /** Events of tracepoints. */
  readonly trace?: boolean;
}
