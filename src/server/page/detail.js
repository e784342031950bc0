// One run or one task: what it was asked, what it says, what became of it, and what may be done.
// A task's events are read once and then followed, each counted by its number.

import * as api from "./api.js";
import { age, at, body, brief, clock, confirm, glyph, h, ms, now, say, show, span, tell, text, word, family } from "./dom.js";
import { isOpenRun, isSettled, listeners, questions, readRuns, runs, tasks, touch } from "./model.js";
import { runName } from "./tree.js";
import * as waiting from "./waiting.js";

/** Events in the timeline, at most; the newest ones. */
const LINES = 400;

let shown = null;
let go = () => {};

export const current = () => shown?.id ?? null;

export function start(navigate) {
  go = navigate;
}

const WHAT = {
  task_created: () => "Started",
  task_attempt_started: (event) => `Attempt ${event.attempt} began`,
  task_attempt_completed: (event) => `Attempt ${event.attempt} ended`,
  task_pass: () => "Passed",
  task_blocked: () => "Blocked",
  task_suspended: () => "Waits for an answer",
  task_resumed: () => "Goes on",
  task_cancelled: () => "Cancelled",
  senior_queried: (event) => `Asked: ${line(event.question)}`,
  senior_answered: (event) => `Answered: ${line(event.answer)}`,
  attempt_slow: (event) => `Attempt ${event.attempt} takes longer than ${span(event.default_hold_ms)}`,
  directive_injected: () => "Was given another prompt",
  worker_output: (event) => `Output: ${event.event?.type ?? ""}${event.event?.stage ? ` ${event.event.stage}` : event.event?.name ? ` ${event.event.name}` : ""}`,
};

function line(value) {
  const whole = (typeof value === "string" ? value : JSON.stringify(value) ?? "").replace(/\s+/g, " ");
  return whole.length > 90 ? `${whole.slice(0, 90)}…` : whole;
}

const fold = (title, open, ...inner) => h("details", { open }, h("summary", {}, h("h3", { text: title })), ...inner);

/** Shows a run or a task, or nothing. */
export async function open(id) {
  if (shown?.listener) listeners.delete(shown.listener);
  const article = at("detail");
  if (!id) {
    shown = null;
    show(article, false);
    document.body.classList.remove("with-detail");
    return;
  }
  const isRun = runs.has(id) || !tasks.has(id) && /^run/i.test(id);
  shown = { id, isRun, last: 0, seen: new Set(), attempt: 0 };
  document.body.classList.add("with-detail");
  show(article, true);
  frame(article);
  article.scrollTop = 0;
  refresh();
  if (!isRun) await followTask(shown);
}

function frame(article) {
  const close = h("button", { type: "button", class: "quiet close", "aria-label": "Close" , text: "Close" });
  close.addEventListener("click", () => go(null));
  shown.parts = {
    name: h("h2", { id: "detail-name" }), status: h("p", { class: "status" }), facts: h("dl", { class: "facts" }),
    actions: h("div", { class: "actions" }), error: h("div"), prompt: h("div"), output: h("div", { class: "output" }),
    result: h("div"), lines: h("ol", { class: "lines" }), cut: h("p", { class: "dim" }),
  };
  const { name, status, facts, actions, error, prompt, output, result, lines, cut } = shown.parts;
  const rest = shown.isRun ? [result] : [error, fold("Prompt", true, prompt), fold("Output", true, output), result, fold("Timeline", true, cut, lines)];
  article.replaceChildren(h("div", { class: "detail-head" }, name, close), status, facts, actions, ...rest);
  shown.said = {};
}

/** Renews a part only where what it says differs. */
function renew(part, mark, make) {
  if (shown.said[part] === mark) return;
  shown.said[part] = mark;
  const held = shown.parts[part].contains(document.activeElement);
  shown.parts[part].replaceChildren(...make());
  if (held) at("detail").focus({ preventScroll: true });
}

function badge(status) {
  const element = shown.parts.status;
  element.className = `status ${family(status)}`;
  renew("status", status, () => [glyph(status), word(status)]);
}

function facts(pairs) {
  const list = shown.parts.facts;
  renew("facts", pairs.map(([name, , to]) => name + to).join(), () => pairs.map(([name, , to]) => h("div", {}, h("dt", { text: name }), h("dd", {}, to ? link(to) : null))));
  pairs.forEach(([, value, to], index) => say(to ? list.children[index].lastChild.firstChild : list.children[index].lastChild, value));
}

function link(to) {
  const button = h("button", { type: "button", class: "link" });
  button.addEventListener("click", () => go(to));
  return button;
}

/** Follows the model. */
export function refresh() {
  if (!shown) return;
  if (shown.isRun) refreshRun(runs.get(shown.id));
  else refreshTask(tasks.get(shown.id));
}

function refreshRun(run) {
  if (!run) return say(shown.parts.name, "No such run is known yet");
  say(shown.parts.name, runName(run));
  badge(run.status);
  const own = [...tasks.values()].filter((task) => task.run === run.id);
  const passed = own.filter((task) => task.status === "pass").length;
  facts([
    ["Run", run.id], ["Started", `${clock(run.started)} · ${age(run.started)} ago`],
    ["Took", span((run.ended ?? now()) - run.started)], ["Tasks", `${own.length}, ${passed} passed`],
    ["Blueprint", run.hash ? run.hash.slice(0, 16) : "inline"],
  ]);
  renew("actions", run.status, () => (isOpenRun(run) ? [act("Cancel run", () => cancelRun(run))] : []));
  if (shown.mark !== run.status) {
    shown.mark = run.status;
    readRun(shown);
  }
}

/** A list holds no report, so it is read when the run has come to another status. */
async function readRun(view) {
  try {
    const { report } = await api.run(view.id);
    if (view !== shown) return;
    renew("result", text(report), () => (report ? [fold("Report", true, body(report))] : []));
  } catch (problem) {
    if (view === shown) renew("result", problem.message, () => [h("p", { class: "error", text: problem.message })]);
  }
}

function refreshTask(task) {
  if (!task) return say(shown.parts.name, "No such task is known yet");
  say(shown.parts.name, task.agent || "task");
  badge(task.status);
  const run = runs.get(task.run);
  const pairs = [["Task", task.id], ["Attempt", task.attempt ? String(task.attempt) : "none yet"], ["Started", `${clock(task.started)} · ${age(task.started)} ago`]];
  if (isSettled(task.status)) pairs.push(["Took", span(task.changed - task.started)]);
  if (run) pairs.push(["Run", runName(run), run.id]);
  if (tasks.has(task.parent)) pairs.push(["Above", tasks.get(task.parent).agent || brief(task.parent), task.parent]);
  facts(pairs);
  const asks = [...questions.values()].some((question) => question.task_id === task.id);
  renew("actions", `${task.status} ${asks}`, () => [
    asks ? act("Answer", () => answer(task), "main") : null,
    task.status === "blocked" ? act("Retry", () => retry(task)) : null,
    isSettled(task.status) && task.status !== "blocked" ? null : act("Cancel", () => cancelTask(task)),
  ].filter(Boolean));
  // What the task holds besides is read again when an attempt ended or began.
  const mark = `${task.status} ${task.attempt}`;
  if (shown.mark !== mark) {
    shown.mark = mark;
    readTask(shown);
  }
}

const act = (name, does, kind = "") => h("button", { type: "button", class: kind, text: name, onclick: does });

function answer(task) {
  if (matchMedia("(max-width: 760px)").matches) go(null);
  waiting.focus(task.id);
}

function cancelRun(run) {
  confirm({ head: `Cancel the run ${runName(run)}?`, text: "Its tasks at work are stopped. What passed stays.", yes: "Cancel run", danger: true,
    act: async () => { await api.cancelRun(run.id); tell("Run cancelled."); readRuns(); } });
}

function cancelTask(task) {
  confirm({ head: `Cancel ${task.agent || "the task"}?`, text: "Its worker is stopped, and the sub-tasks below it. A cancelled task cannot be taken up again.", yes: "Cancel task", danger: true,
    act: async () => { await api.cancelTask(task.id); tell("Task cancelled."); } });
}

function retry(task) {
  confirm({ head: `Try ${task.agent || "the task"} again?`, text: `Attempt ${task.attempt + 1} begins with the same prompt. Work of the last attempt may be done twice.`, yes: "Retry",
    act: async () => { await api.retry(task.id); tell("Another attempt was asked for."); touch(); } });
}

/** A value whose fields are all plain, such as what a child process left, as lines of text. */
function plainly(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
  const fields = Object.entries(value).filter(([, field]) => field !== "" && field !== null);
  if (fields.some(([, field]) => typeof field === "object")) return value;
  return fields.map(([name, field]) => (String(field).includes("\n") ? `${name}:\n${field}` : `${name}: ${field}`)).join("\n");
}

async function readTask(view) {
  try {
    const state = await api.task(view.id);
    if (view !== shown) return;
    renew("prompt", text(state.spec?.initial_directive), () => [body(state.spec?.initial_directive)]);
    const ended = state.status === "blocked" ? "error" : "result";
    if (isSettled(state.status) && state.last_result !== null && state.last_result !== undefined) {
      const other = ended === "error" ? "result" : "error";
      renew(other, "", () => []);
      renew(ended, text(state.last_result), () => ended === "error"
        ? [h("section", { class: "error", role: "alert" }, h("h3", { text: "Error" }), body(plainly(state.last_result)))]
        : [fold("Result", true, body(state.last_result))]);
    } else {
      renew("error", "", () => []);
      renew("result", "", () => []);
    }
  } catch (problem) {
    if (view === shown) renew("error", problem.message, () => [h("p", { class: "error", text: problem.message })]);
  }
}

/** Reads a task's events and follows them; what comes while they are read is put behind. */
async function followTask(view) {
  const early = [];
  view.listener = (record) => {
    if (record.event.task_id !== view.id) return;
    if (early.done) add(view, record);
    else early.push(record);
  };
  listeners.add(view.listener);
  try {
    for (;;) {
      const page = await api.trace(view.id, view.last);
      if (view !== shown) return;
      for (const record of page.events) add(view, record);
      if (page.events.length < (page.limit ?? 1000)) break;
    }
  } catch (problem) {
    if (view === shown) say(view.parts.cut, problem.message);
  }
  early.done = true;
  for (const record of early) add(view, record);
}

function add(view, record) {
  if (view !== shown || record.seq <= view.last) return;
  view.last = record.seq;
  const { lines, cut, output } = view.parts;
  const { event } = record;
  const what = (WHAT[event.kind] ?? (() => event.kind.replaceAll("_", " ")))(event);
  lines.append(h("li", { class: event.kind }, h("time", { text: clock(ms(record.at)) }), h("span", { text: what }), h("span", { class: "dim num", text: `#${record.seq}` })));
  if (lines.children.length > LINES) {
    lines.firstChild.remove();
    view.dropped = (view.dropped ?? 0) + 1;
    say(cut, `${view.dropped} earlier events are not shown.`);
  }
  if (event.kind === "worker_output") addOutput(view, output, event);
  if (event.kind === "task_attempt_started" && event.attempt > 1) output.append(h("p", { class: "dim", text: `Attempt ${event.attempt}` }));
}

/** Pieces that follow each other go into one block; it keeps its end in view while it grows. */
function addOutput(view, output, { attempt, event }) {
  if (event.type === "partial") {
    if (!view.block || view.block !== output.lastChild) {
      view.block = h("pre", { class: "stream", tabindex: "0" });
      output.append(view.block);
    }
    const end = view.block.scrollHeight - view.block.scrollTop - view.block.clientHeight < 30;
    view.block.append(typeof event.chunk === "string" ? event.chunk : `${JSON.stringify(event.chunk)}\n`);
    while (view.block.childNodes.length > 2000) view.block.firstChild.remove();
    if (end) view.block.scrollTop = view.block.scrollHeight;
    return;
  }
  const note = event.type === "progress" ? [event.stage, event.note].filter(Boolean).join(": ") : event.type === "artifact" ? `Artifact ${event.name}` : event.ok ? "Final, passed" : "Final, not passed";
  output.append(h("p", { class: `piece ${event.type}`, text: note }));
  if (!event.content) return;
  const value = event.content.kind === "inline" ? event.content.value : event.content;
  output.append(value?.omitted_bytes ? larger(view.id, attempt, value.omitted_bytes, event) : body(value));
}

/** A body that is too large for an event is fetched when it is asked for. */
function larger(id, attempt, bytes, event) {
  const button = h("button", { type: "button", class: "quiet", text: `Load ${bytes.toLocaleString()} bytes` });
  button.addEventListener("click", async () => {
    const pieces = (await api.output(id, attempt)).output;
    const piece = pieces.findLast((one) => one.type === event.type && one.name === event.name);
    button.replaceWith(body(piece?.content?.value ?? piece?.content));
  });
  return button;
}
