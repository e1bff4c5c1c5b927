// Loads a module when it is first wanted.
//
//   load(path)     "view/chat.js", from the root of the page

/**
 * How often each has failed. Chromium 148 remembers for as long as the page is open that a module could not be had from an
 * address, so what has failed is asked for at another.
 */
const failures = new Map();

export async function load(path) {
  const failed = failures.get(path) ?? 0;
  try {
    return await import(failed === 0 ? `./${path}` : `./${path}?${failed}`);
  } catch (error) {
    failures.set(path, failed + 1);
    throw error;
  }
}
