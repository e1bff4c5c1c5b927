// This device's subscription to pushes: what reaches it while no page is open. What is pushed the server decides; from here it
// only learns where to. That is told again at each start, since the server forgets devices that are not used any more, and a
// browser may have changed the address meanwhile. The subscription ends on the server with the session it was made in.
//
//   new Push(api)
//   push.follow(wish)     `wish` is `{ about: "all" | "mentions", preview: bool, quiet }`, or null for none; resolves to whether this
//                         device is pushed to

import { t, words } from "../i18n/index.js";

export class Push {
  #api;
  /** One wish after the other. */
  #last = Promise.resolve(false);

  constructor(api) {
    this.#api = api;
  }

  follow(wish) {
    this.#last = this.#last.then(() => (wish ? this.#subscribe(wish) : this.#end())).catch(() => false);
    return this.#last;
  }

  async #subscribe({ about, preview, quiet }) {
    const registration = await ready();
    if (!registration?.pushManager) return false;
    const { key } = await this.#api.pushKey();
    let subscription = await registration.pushManager.getSubscription();
    if (subscription && !isFor(subscription, key)) {
      await subscription.unsubscribe();
      subscription = null;
    }
    subscription ??= await registration.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
    const { endpoint, keys } = subscription.toJSON();
    await this.#api.subscribePush({ endpoint, keys, what: about, hides_text: !preview });
    // The worker can neither load the language that was chosen nor see what else was.
    const told = { more: words("log.new"), hidden: t("notify.body"), picture: t("message.picture") };
    registration.active?.postMessage({ words: { ...told, quiet } });
    return true;
  }

  async #end() {
    const subscription = await (await ready())?.pushManager?.getSubscription();
    if (!subscription) return false;
    // Here first: what the server does not hear of, the push service tells it.
    await subscription.unsubscribe();
    await this.#api.unsubscribePush(subscription.endpoint);
    return false;
  }
}

/** The worker's registration. Where a policy forbids workers, `ready` would never resolve. */
const ready = async () => ((await navigator.serviceWorker?.getRegistration()) ? navigator.serviceWorker.ready : undefined);

/** Whether a subscription is for the server's key of today: a server that was set up anew has another. */
function isFor(subscription, key) {
  const bytes = subscription.options?.applicationServerKey;
  if (!bytes) return true;
  const binary = String.fromCharCode(...new Uint8Array(bytes));
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "") === key;
}
