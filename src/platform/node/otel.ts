/** OpenTelemetry metrics, when the application has @opentelemetry/api. */
import { type MeterLike, sendMetrics } from "../../trace/index.ts";

/**
 * Sends metrics to the application's OpenTelemetry meter provider until the returned function is called. Undefined when
 * `@opentelemetry/api` is not installed.
 */
export async function sendOpenTelemetry(): Promise<(() => void) | undefined> {
  try {
    const { metrics } = await import("@opentelemetry/api");
    const meter: MeterLike = metrics.getMeter("pagemirror");
    return sendMetrics(meter);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND") {
      return undefined;
    }
    throw error;
  }
}
