// What the page knows of the server: snapshots of its lists, kept true by the events.
//
// An event says what happened and seldom all of it, so some only mark a list to be read again,
// soon and once for many. After a gap, or a first connection, everything is read again.

import * as api from "./api.js";
import { ms, now } from "./dom.js";

/** Runs that are read at first; older ones are read when asked for. */
const RUNS = 200;
/** Tasks that are read at most. */
const TASKS = 20_000;
/** How long the chart looks back, and one bar of it. */
const WINDOW = 300_000;
export const BAR = 5_000;
/** An event that is older when it comes was not seen as it happened. */
const LATE = 8_000;

export const tasks = new Map();
export const runs = new Map();
export const questions = new Map();
export const state = {
  link: "connecting", since: Date.now(), missed: 0, olderRuns: null, ready: false, cut: 0, late: null, lateSince: null,
  sessions: [], operators: null, supervision: null, metrics: {}, paused: false,
};
/** Events of a task as they come, by whoever shows it. */
export const listeners = new Set();
/** When tasks were settled, and samples of how many were at work. */
export const settled = [];
export const samples = [];

const SETTLED = new Set(["pass", "blocked", "cancelled"]);
const OPEN_RUN = new Set(["running", "waiting"]);
export const isSettled = (status) => SETTLED.has(status);
export const isOpenRun = (run) => OPEN_RUN.has(run.status);

let changed = () => {};
let scheduled = false;

/** Calls back soon after anything changed, once for many changes. */
export function onChange(render) {
  changed = render;
}

export function touch() {
  if (scheduled) return;
  scheduled = true;
  const go = () => {
    scheduled = false;
    changed();
  };
  setTimeout(go, document.hidden ? 1000 : 60);
}

function putTask(raw) {
  const id = raw.task_id ?? raw.id;
  const known = tasks.get(id);
  const task = known ?? { id, parent: null, run: null };
  task.agent = raw.agent ?? raw.spec?.agent ?? task.agent ?? "";
  task.status = raw.status;
  task.born ??= born.get(id) ?? Infinity;
  born.delete(id);
  task.attempt = raw.attempt ?? 0;
  if (raw.parent !== undefined) task.parent = raw.parent;
  if (raw.run !== undefined) task.run = raw.run;
  task.started = ms(raw.started_at ?? raw.created_at ?? task.started);
  task.changed = ms(raw.changed_at ?? raw.updated_at ?? task.started);
  if (!known) tasks.set(id, task);
  return task;
}

function putRun(raw) {
  const run = runs.get(raw.run_id) ?? { id: raw.run_id };
  Object.assign(run, {
    blueprint: raw.blueprint ?? raw.blueprint_id ?? null, hash: raw.blueprint_hash ?? "", status: raw.status,
    started: ms(raw.started_at), ended: ms(raw.ended_at),
  });
  runs.set(run.id, run);
  for (const id of raw.tasks ?? []) {
    const task = tasks.get(id.task_id ?? id);
    if (task && !task.run) task.run = run.id;
  }
}

/** Reads a list once for many calls: soon after the first, and again if something came meanwhile. A
 *  list that takes long is read less often, so that watching never becomes most of the work. */
function debounced(least, read) {
  let [timer, busy, again, wait] = [null, false, false, least];
  const go = async () => {
    timer = null;
    busy = true;
    const begun = performance.now();
    try {
      await read();
    } catch (problem) {
      failed(problem);
    }
    busy = false;
    wait = Math.max(least, 4 * (performance.now() - begun));
    touch();
    if (again) {
      again = false;
      call();
    }
  };
  const call = () => {
    if (busy) again = true;
    else timer ??= setTimeout(go, wait);
  };
  return call;
}

function failed(problem) {
  if (problem.status === 401 || problem.code === "not_from_page") state.link = "out";
  else if (problem.status === 0) state.link = state.link === "live" ? "lost" : state.link;
  state.problem = problem.status === 0 ? null : problem.message;
}

/** Numbers of the events that told of tasks which no list told of yet; they give the order. */
const born = new Map();
let fresh = Infinity;
const readFresh = debounced(150, async () => {
  // Whole seconds, and one back, since starts are compared with the server's own clock.
  const since = Math.floor(fresh) - 2;
  fresh = Infinity;
  const { items } = await api.list("/v1/tasks", "tasks", { since: String(since * 1000) }, TASKS);
  items.forEach(putTask);
});
export const readRuns = debounced(300, async () => {
  const { items, next } = await api.list("/v1/runs", "runs", {}, RUNS);
  items.forEach(putRun);
  if (!state.ready || state.olderRuns === null) state.olderRuns = next;
});
export const readQuestions = debounced(60, async () => {
  const open = (await api.get("/v1/questions")).questions;
  const keys = new Set(open.map((one) => one.key));
  for (const key of questions.keys()) if (!keys.has(key)) questions.delete(key);
  for (const one of open) questions.set(one.key, { ...one, asked: ms(one.asked_at) });
});
const readSessions = debounced(200, async () => {
  state.sessions = (await api.list("/v1/sessions", "sessions")).items;
});

/** What is polled, since no event tells of it. A route that is not there is asked once. */
const absent = new Set();
async function optional(path, take, read = api.get) {
  if (absent.has(path)) return;
  try {
    take(await read(path));
  } catch (problem) {
    if (problem.status === 404 || problem.status === 405) absent.add(path);
    else failed(problem);
  }
}

export async function poll() {
  await Promise.all([
    optional("/v1/operators", (answer) => (state.operators = answer.operators ?? [])),
    optional("/v1/supervision", (answer) => (state.supervision = answer)),
    optional("/metrics", (answer) => (state.metrics = parseMetrics(answer)), api.getText),
  ]);
  readSessions();
  if ([...runs.values()].some(isOpenRun)) readRuns();
  touch();
}

function parseMetrics(source) {
  const metrics = {};
  for (const line of source.split("\n")) {
    const match = /^adjutant_(\w+)(?:\{[^}]*\})? ([0-9.eE+-]+)$/.exec(line);
    if (match) metrics[match[1]] = (metrics[match[1]] ?? 0) + Number(match[2]);
  }
  return metrics;
}

export async function readOlderRuns() {
  if (!state.olderRuns) return;
  const { items, next } = await api.list("/v1/runs", "runs", { after: state.olderRuns }, RUNS);
  items.forEach(putRun);
  state.olderRuns = next;
  touch();
}

/** Reads everything again; after a reset nothing of before is there any more. */
export async function readAll(reset = false) {
  try {
    const [all, got] = await Promise.all([api.list("/v1/tasks", "tasks", {}, TASKS), api.list("/v1/runs", "runs", {}, RUNS)]);
    const { items } = all;
    state.cut = all.next ? items.length : 0;
    if (reset) {
      tasks.clear();
      runs.clear();
    }
    const there = new Set(items.map((raw) => putTask(raw).id));
    // What started while the list was read is known by its event alone.
    const before = now() - 10_000;
    for (const task of tasks.values()) if (!there.has(task.id) && task.changed < before) tasks.delete(task.id);
    if (!state.ready) items.forEach(noteOld);
    got.items.forEach(putRun);
    state.olderRuns ??= got.next;
    state.problem = null;
    state.ready = true;
    sample();
  } catch (problem) {
    failed(problem);
    if (problem.status !== 401) setTimeout(() => readAll(reset), 2000);
  }
  readQuestions();
  readSessions();
  poll();
}

/** What was settled before the page was opened belongs to the chart as well. */
function noteOld(raw) {
  const task = tasks.get(raw.task_id ?? raw.id);
  if (SETTLED.has(task.status) && task.changed > now() - WINDOW) settled.push(task.changed);
}

const BECOMES = {
  task_attempt_started: "running", task_pass: "pass", task_blocked: "blocked",
  task_suspended: "suspended", task_resumed: "running", task_cancelled: "cancelled",
};

/** Takes one event of the stream. */
export function take(record) {
  const { event } = record;
  const when = ms(record.at);
  const id = event.task_id;
  // Old events that still come are a backlog; what is shown is as old as they are.
  const late = now() - when > LATE;
  state.late = late ? when : null;
  state.lateSince = late ? state.lateSince ?? Date.now() : null;
  if (event.kind.startsWith("session_")) readSessions();
  if (event.kind === "dispatch_paused" || event.kind === "dispatch_resumed") state.paused = event.kind === "dispatch_paused";
  if (id) {
    const task = tasks.get(id);
    if (!task) {
      fresh = Math.min(fresh, record.at);
      if (!born.has(id)) born.set(id, record.seq);
      readFresh();
    } else if (BECOMES[event.kind]) {
      task.status = BECOMES[event.kind];
      task.changed = Math.max(task.changed ?? 0, when);
    }
    if (task && event.kind === "task_attempt_started") task.attempt = event.attempt;
    if (SETTLED.has(BECOMES[event.kind])) settled.push(when);
    if (BECOMES[event.kind] || event.kind === "task_created") readRuns();
    if (event.kind === "task_resumed") questions.delete(event.key);
    if (event.kind.startsWith("senior_") || event.kind === "task_suspended" || SETTLED.has(BECOMES[event.kind])) {
      if (event.kind !== "senior_queried" || !tasks.get(id)) readQuestions();
    }
  }
  for (const listener of listeners) listener(record);
  touch();
}

/** Counts by family, over all tasks. */
export function counts() {
  const count = { pending: 0, running: 0, suspended: 0, pass: 0, blocked: 0, cancelled: 0 };
  for (const task of tasks.values()) count[task.status] += 1;
  return count;
}

/** Takes a sample for the charts, and forgets what is too old for them. */
export function sample() {
  const count = counts();
  samples.push({ at: now(), running: count.running, queued: count.pending, turns: state.metrics.queued_turns ?? 0 });
  const from = now() - WINDOW;
  while (samples.length && samples[0].at < from) samples.shift();
  let old = 0;
  while (old < settled.length && settled[old] < from) old += 1;
  settled.splice(0, old);
}
