/** What every driver is held to, in a browser. */
import "../../src/testing-kit/webgpu.test.ts";
