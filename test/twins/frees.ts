/** Twins of lifetimes: a notifier that is freed too early, and the same freed as it should be. */
import { ToyList, ToyNotifier, twin } from "./toy.ts";

/**
 * Before the patch: struct hmm had a reference count of its own, `mm->hmm` named it, and callbacks tried to take a
 * reference. Between the walk of the list and that try the last reference may go, and with it the object.
 */
function prePatch(fixed: boolean) {
  return twin(fixed ? "mm-hmm-kref.fixed" : "mm-hmm-kref", (host) => {
    const notifiers = new ToyList();
    const hmm = Object.assign(new ToyNotifier(host), { kref: 1 });
    const mm: { hmm: typeof hmm | undefined } = { hmm };
    notifiers.list = [hmm];
    const put = (): void => {
      hmm.kref--;
      if (hmm.kref === 0) {
        mm.hmm = undefined;
        notifiers.unlist(hmm);
        if (fixed) {
          notifiers.srcu.call(() => hmm.free());
        } else {
          hmm.free();
        }
      }
    };
    return {
      tasks: [
        {
          name: "invalidate",
          run: async () => {
            const found = mm.hmm;
            await notifiers.srcu.read(async () => {
              if (found === undefined || !notifiers.list.includes(found)) {
                return;
              }
              await undefined;
              if (fixed) {
                await found.callback();
                return;
              }
              // kref_get_unless_zero of what may be freed already.
              if (found.freed) {
                host.fail("I-MN-3", "a callback looks at the reference count of an object that is freed");
              }
              if (found.kref > 0) {
                found.kref++;
                await found.callback();
                put();
              }
            });
          },
        },
        { name: "unregister", run: async () => put() },
      ],
    };
  });
}

/** The last put frees at once instead of after a grace period. */
function putAtOnce(fixed: boolean) {
  return twin(fixed ? "put-grace-period.fixed" : "put-grace-period", (host) => {
    const notifiers = new ToyList();
    const notifier = new ToyNotifier(host);
    notifiers.list = [notifier];
    return {
      tasks: [
        { name: "invalidate", run: () => notifiers.invalidate() },
        {
          name: "put",
          run: async () => {
            notifiers.unlist(notifier);
            if (fixed) {
              notifiers.srcu.call(() => notifier.free());
            } else {
              notifier.free();
            }
          },
        },
      ],
    };
  });
}

/** Unregister waits for a grace period, but frees before it. */
function freeFirst(fixed: boolean) {
  return twin(fixed ? "free-before-synchronize.fixed" : "free-before-synchronize", (host) => {
    const notifiers = new ToyList();
    const notifier = new ToyNotifier(host);
    notifiers.list = [notifier];
    return {
      tasks: [
        { name: "invalidate", run: () => notifiers.invalidate() },
        {
          name: "unregister",
          run: async () => {
            notifiers.unlist(notifier);
            if (fixed) {
              await notifiers.srcu.synchronize();
              notifier.free();
            } else {
              notifier.free();
              await notifiers.srcu.synchronize();
            }
          },
        },
      ],
    };
  });
}

/** Each bug and its repair. */
export const frees = [prePatch, putAtOnce, freeFirst].flatMap((make) => [make(false), make(true)]);
