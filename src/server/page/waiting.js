// What waits for a human: one card a question, with the ways to answer it. A card is built once and
// kept while its question is open, so nobody's typing is lost when the list changes; what was typed
// is kept over a reload as well.

import * as api from "./api.js";
import { age, at, body, brief, confirm, h, say, show, tell, text } from "./dom.js";
import { questions, readQuestions, runs, tasks } from "./model.js";
import { runName } from "./tree.js";

const cards = new Map();
const draft = (key) => `draft ${key}`;

/** The answers that a question offers: `choices` or `options`, of texts or of {value, label}. */
function choices(question) {
  const offered = question?.choices ?? question?.options;
  if (!Array.isArray(offered) || offered.length === 0 || offered.length > 12) return [];
  const whole = (one) => one !== null && typeof one === "object" && "value" in one;
  return offered.map((one) => (whole(one) ? { value: one.value, label: text(one.label ?? one.value) } : { value: one, label: text(one) }));
}

/** The question itself, and what else came with it. */
function parts(question) {
  if (question === null || typeof question !== "object" || Array.isArray(question)) return [text(question), null];
  const { choices: _, options: __, ...rest } = question;
  for (const name of ["question", "prompt", "text", "message", "reason"]) {
    if (typeof rest[name] !== "string") continue;
    const { [name]: asked, ...other } = rest;
    return [asked, Object.keys(other).length ? other : null];
  }
  return ["", rest];
}

/** What came with a question: a short line a field where that is possible. */
function given(rest) {
  const flat = Object.entries(rest).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]);
  if (Array.isArray(rest) || flat.length > 8 || flat.some(([, value]) => value.length > 160)) return h("div", { class: "given" }, body(rest, 4000));
  return h("dl", { class: "facts" }, flat.map(([name, value]) => h("div", {}, h("dt", { text: name }), h("dd", { text: value }))));
}

/** Text is taken as JSON where it is JSON, like `--answer` of the program does. */
function parse(typed) {
  try {
    return { value: JSON.parse(typed), json: true };
  } catch {
    return { value: typed, json: false };
  }
}

function send(key, value) {
  const question = questions.get(key);
  const agent = tasks.get(question?.task_id)?.agent ?? "the task";
  confirm({
    head: "Send this answer?",
    text: `${agent} goes on with it. An answer cannot be taken back.`,
    body: text(value),
    yes: "Send answer",
    act: async () => {
      await api.answer(key, value);
      sessionStorage.removeItem(draft(key));
      tell("Answer sent.");
      questions.delete(key);
      render();
      readQuestions();
    },
  });
}

function build(question, onOpen) {
  const [asked, rest] = parts(question.question);
  const offered = choices(question.question);
  const who = h("button", { type: "button", class: "link who" });
  who.addEventListener("click", () => onOpen(question.task_id));
  const of = h("span", { class: "dim" });
  const old = h("span", { class: "dim num" });
  const id = `answer-${question.key}`;
  const input = h("textarea", { id, rows: "1", spellcheck: "false", placeholder: "Text or JSON" });
  input.value = sessionStorage.getItem(draft(question.key)) ?? "";
  const note = h("span", { class: "dim note", id: `${id}-note` });
  input.setAttribute("aria-describedby", note.id);
  const button = h("button", { type: "submit", class: offered.length ? "" : "main", text: "Answer" });
  const read = () => {
    const typed = input.value.trim();
    button.disabled = typed === "";
    const { value, json } = parse(typed);
    const kind = value === null ? "null" : Array.isArray(value) ? "a list" : `a${typeof value === "object" ? "n" : ""} ${typeof value}`;
    note.textContent = typed === "" ? "" : json ? `goes as JSON: ${kind}` : "goes as text";
  };
  input.addEventListener("input", () => {
    sessionStorage.setItem(draft(question.key), input.value);
    read();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  read();
  const label = h("label", { for: id, class: "unseen", text: `Answer to ${tasks.get(question.task_id)?.agent ?? "the task"}` });
  const form = h("form", {}, label, h("div", { class: "row-end" }, input, button), note);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.value.trim() !== "") send(question.key, parse(input.value.trim()).value);
  });
  const picks = offered.map(({ value, label }, index) => {
    const pick = h("button", { type: "button", class: index === 0 ? "main" : "", text: label });
    pick.addEventListener("click", () => send(question.key, value));
    return pick;
  });
  const card = h("article", { class: "card", "data-key": question.key },
    h("div", { class: "card-head" }, who, of, old),
    asked ? h("p", { class: "asked", text: asked }) : null,
    rest ? given(rest) : null,
    picks.length ? h("div", { class: "picks", role: "group", "aria-label": "Answers offered" }, picks) : null,
    picks.length ? h("details", { open: input.value !== "" }, h("summary", { class: "dim", text: "In other words" }), form) : form);
  return { card, who, of, old };
}

let onOpen = () => {};

export function start(open) {
  onOpen = open;
}

export function render() {
  const open = [...questions.values()].sort((one, two) => one.asked - two.asked);
  const list = at("waiting-list");
  for (const [key, { card }] of cards) {
    if (questions.has(key)) continue;
    card.remove();
    cards.delete(key);
  }
  for (const question of open) {
    let made = cards.get(question.key);
    if (!made) {
      made = build(question, onOpen);
      cards.set(question.key, made);
      list.append(made.card);
    }
    const task = tasks.get(question.task_id);
    say(made.who, task?.agent || "task");
    const run = runs.get(task?.run);
    say(made.of, `${run ? `${runName(run)} · ` : ""}${brief(question.task_id)}`);
    say(made.old, age(question.asked));
  }
  say(at("waiting-count"), open.length ? String(open.length) : "");
  show(at("waiting-none"), open.length === 0);
  at("waiting").classList.toggle("some", open.length > 0);
  const title = open.length ? `(${open.length}) adjutant` : "adjutant";
  if (document.title !== title) document.title = title;
}

/** Puts the keyboard into the answer of a task's question. */
export function focus(taskId) {
  for (const question of questions.values()) {
    if (question.task_id !== taskId) continue;
    const { card } = cards.get(question.key) ?? {};
    card?.scrollIntoView({ block: "nearest" });
    (card?.querySelector(".picks button") ?? card?.querySelector("textarea"))?.focus();
  }
}
