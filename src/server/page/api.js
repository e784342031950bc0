// The routes, as this page asks them. It keeps nothing.

import { learnClock } from "./dom.js";
import { forget, proof } from "./key.js";

/** Items in one page of a list. */
const PAGE = 500;

/** A refusal, in the server's own words. */
export class Refusal extends Error {
  constructor(status, problem) {
    const hint = problem.hint ? ` (${problem.hint})` : "";
    super(`${problem.detail ?? `the server answered ${status}`}${hint}`);
    this.status = status;
    this.code = problem.code;
  }
}

async function ask(path, init = {}) {
  const headers = { ...init.headers, ...proof() };
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", cache: "no-store", ...init, headers });
  } catch {
    throw new Refusal(0, { detail: "the server cannot be reached" });
  }
  learnClock(response.headers.get("date"));
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Refusal(response.status, problem);
  }
  return response;
}

export const get = async (path) => (await ask(path)).json();

export const getText = async (path) => (await ask(path)).text();

/** Asks for a change. */
export function post(path, value) {
  const init = { method: "POST" };
  if (value !== undefined) {
    init.headers = { "Content-Type": "application/json" };
    init.body = JSON.stringify(value);
  }
  return ask(path, init);
}

const quoted = encodeURIComponent;

/** Reads a paged list up to a number of items; `next` is where it would go on. */
export async function list(route, name, query = {}, max = PAGE) {
  const items = [];
  let after = query.after;
  for (;;) {
    const params = new URLSearchParams(query);
    params.set("limit", String(Math.min(PAGE, max - items.length)));
    if (after) params.set("after", after);
    const page = await get(`${route}?${params}`);
    items.push(...page[name]);
    after = page.next;
    // A page may be empty and not the last: it is as much as the server looks at in one go.
    if (!after || items.length >= max) return { items, next: after ?? null };
  }
}

export const task = (id) => get(`/v1/tasks/${quoted(id)}`);
export const trace = (id, after) => get(`/v1/tasks/${quoted(id)}/trace?after=${after}`);
export const output = (id, attempt) => get(`/v1/tasks/${quoted(id)}/attempts/${attempt}/output`);
export const run = (id) => get(`/v1/runs/${quoted(id)}`);
export const answer = (key, value) => post(`/v1/questions/${quoted(key)}/answer`, { answer: value });
export const cancelTask = (id) => post(`/v1/tasks/${quoted(id)}/cancel`);
export const cancelRun = (id) => post(`/v1/runs/${quoted(id)}/cancel`);
export const retry = (id) => post(`/v1/tasks/${quoted(id)}/retry`);

export async function leave() {
  await post("/leave");
  forget();
}
