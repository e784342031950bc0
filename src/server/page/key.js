// The page's key, which the server wants beside the cookie: a browser sends the cookie to every port
// of the host, and shows what is stored here to this one alone.
//
// A link brings it in the address, from where it is put away at once. It is stored for the origin and
// not for one tab, so that a reload, a second tab and a browser that was closed meanwhile are let in
// for as long as the cookie is good.

const NAME = "adjutant key";

/** Where there is no storage, the key lasts until the page is left. */
let own = null;

const brought = /^#key=([0-9a-f]{64})$/.exec(location.hash);
if (brought) {
  own = brought[1];
  stored((storage) => storage.setItem(NAME, own));
  history.replaceState(null, "", location.pathname);
}

function stored(act) {
  try {
    return act(localStorage);
  } catch {
    return null;
  }
}

/** What goes with every request. Another tab may have come by a newer link, so it is read anew. */
export function proof() {
  const key = stored((storage) => storage.getItem(NAME)) ?? own;
  return key ? { "X-Adjutant": key } : {};
}

/** Puts the key away for good. */
export function forget() {
  own = null;
  stored((storage) => storage.removeItem(NAME));
}
