// The event stream, followed by number: a cut goes on after the last event that was seen.
//
// It is read by fetch rather than EventSource, which sends no key and hides the server's heartbeat and
// the status of a refusal: a connection that died silently would look like an engine without events.

import { learnClock } from "./dom.js";
import { proof } from "./key.js";

/** Without a byte for so long the connection is taken for dead; the server's beat is 15 s. */
const SILENT = 40_000;
const WAIT_FIRST = 500;
const WAIT_MAX = 10_000;

/** Follows the events for ever. `on` has open(fresh), event(record), gap(), lost(status). */
export async function follow(on) {
  let last = null;
  let wait = WAIT_FIRST;
  for (;;) {
    const status = await once(last, on, (id) => {
      last = id;
      wait = WAIT_FIRST;
    });
    on.lost(status);
    await pause(wait);
    wait = Math.min(wait * 2, WAIT_MAX);
  }
}

/** A pause that ends early when the network or the page comes back. */
function pause(length) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      resolve();
    };
    const timer = setTimeout(end, length);
    addEventListener("online", end);
  });
}

async function once(last, on, seen) {
  const abort = new AbortController();
  let timer = setTimeout(() => abort.abort(), SILENT);
  try {
    const headers = last === null ? proof() : { ...proof(), "Last-Event-ID": String(last) };
    const response = await fetch("/v1/events?bodies=true", { headers, signal: abort.signal, cache: "no-store" });
    if (!response.ok) return response.status;
    learnClock(response.headers.get("date"));
    on.open(last === null);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return 0;
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), SILENT);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) take(block, on, seen);
    }
  } catch {
    return 0;
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
}

function take(block, on, seen) {
  let [id, kind, data] = [null, "", ""];
  for (const line of block.split("\n")) {
    if (line.startsWith("id:")) id = Number(line.slice(3));
    else if (line.startsWith("event:")) kind = line.slice(6).trim();
    else if (line.startsWith("data:")) data += line.slice(5);
  }
  if (id === null || !data) return;
  if (kind === "gap") on.gap(JSON.parse(data));
  else on.event(JSON.parse(data));
  seen(id);
}
