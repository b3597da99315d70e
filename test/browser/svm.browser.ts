/** The suites of svm mode, in a browser. */
import "../../src/drivers/webgpu/svm/advice.test.ts";
import "../../src/drivers/webgpu/svm/bound-ranges.test.ts";
import "../../src/drivers/webgpu/svm/compile-svm.test.ts";
import "../../src/drivers/webgpu/svm/disruption.test.ts";
import "../../src/drivers/webgpu/svm/faults.test.ts";
import "../../src/drivers/webgpu/svm/mixed-pages.test.ts";
import "../../src/drivers/webgpu/svm/oversubscribed.test.ts";
import "../../src/drivers/webgpu/svm/page-states.test.ts";
import "../../src/drivers/webgpu/svm/permission.test.ts";
import "../../src/drivers/webgpu/svm/pool-sharing.test.ts";
import "../../src/drivers/webgpu/svm/prefetch.test.ts";
import "../../src/drivers/webgpu/svm/program.test.ts";
import "../../src/drivers/webgpu/svm/replay-order.test.ts";
import "../../src/drivers/webgpu/svm/store-log.test.ts";
import "../../src/drivers/webgpu/svm/svm-kernel.test.ts";
import "../../src/drivers/webgpu/svm/svm-model.test.ts";
