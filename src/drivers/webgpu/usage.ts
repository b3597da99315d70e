/** WebGPU's flag values. Browsers have them as globals, other hosts do not; the numbers are fixed by the specification. */

/** Bits of `GPUBufferDescriptor.usage`. */
export const BufferUsage = {
  MapRead: 0x0001,
  MapWrite: 0x0002,
  CopySrc: 0x0004,
  CopyDst: 0x0008,
  Uniform: 0x0040,
  Storage: 0x0080,
} as const;

/** Bits of `GPUBuffer.mapAsync`'s mode. */
export const MapMode = { Read: 0x0001, Write: 0x0002 } as const;

/** Bits of `GPUBindGroupLayoutEntry.visibility`. */
export const ShaderStage = { Compute: 0x0004 } as const;
