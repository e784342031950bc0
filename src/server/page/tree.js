// The tree of runs, tasks and sub-tasks. Only the rows that can be seen are elements, so its cost
// depends on the height of the window and not on how much there is.

import { at, brief, family, glyph, h, say, shortAge, show, word } from "./dom.js";
import { isOpenRun, isSettled, runs, state, tasks } from "./model.js";

/** Rows above and below the window that are kept ready. */
const SPARE = 8;

const CHIPS = [
  ["all", "All", () => true],
  ["active", "Active", (status) => ["pending", "running", "waiting", "suspended"].includes(status)],
  ["waiting", "Waiting", (status) => family(status) === "suspended"],
  ["blocked", "Blocked", (status) => family(status) === "blocked"],
  ["done", "Done", (status) => isSettled(status)],
];

let [chip, filter] = ["all", ""];
let rows = [];
let focused = null;
let open = () => {};
let selected = () => null;
/** What was opened or closed by hand; otherwise runs at work are open and others closed. */
const toggled = new Map();
const shown = new Map();

/** Sets the tree up. `onOpen` is called with the id of a row; `current` gives the one that is shown. */
export function start(onOpen, current) {
  open = onOpen;
  selected = current;
  const bar = at("chips");
  for (const [name, label] of CHIPS) {
    const button = h("button", { type: "button", "aria-pressed": String(name === chip), text: label });
    button.addEventListener("click", () => {
      chip = name;
      for (const other of bar.children) other.setAttribute("aria-pressed", String(other === button));
      render();
    });
    bar.append(button);
  }
  at("filter").addEventListener("input", (event) => {
    filter = event.target.value.trim().toLowerCase();
    render();
  });
  at("work").addEventListener("scroll", () => draw(), { passive: true });
  addEventListener("resize", () => draw());
  const tree = at("tree");
  tree.addEventListener("click", clicked);
  tree.addEventListener("keydown", pressed);
  tree.addEventListener("focus", () => {
    if (!rows.some((row) => row.id === focused)) focused = rows[0]?.id ?? null;
    draw();
  });
}

const isOpen = (row) => toggled.get(row.id) ?? (row.run ? isOpenRun(row.run) || filter !== "" || row.run.status === "blocked" : true);

function matches(item, name) {
  const test = CHIPS.find(([known]) => known === chip)[2];
  return test(item.status) && (filter === "" || name.toLowerCase().includes(filter) || item.id.toLowerCase().includes(filter));
}

export const runName = (run) => run.blueprint ?? (run.hash ? `inline ${run.hash.slice(0, 8)}` : "run");

/** Which of two tasks was started first; within a second their events tell, as far as they were seen. */
const older = (one, two) => (one.started - two.started) || (one.born === two.born ? (one.id < two.id ? -1 : 1) : one.born - two.born);

/** All rows in their order: newest run first, the tasks of a run in theirs. */
function flatten() {
  const below = new Map();
  const put = (key, task) => below.get(key)?.push(task) ?? below.set(key, [task]);
  for (const task of tasks.values()) {
    if (task.parent && tasks.has(task.parent)) put(task.parent, task);
    else put(task.run && runs.has(task.run) ? task.run : "", task);
  }
  for (const siblings of below.values()) siblings.sort(older);
  const plain = chip === "all" && filter === "";
  const out = [];
  const add = (task, level, nth = 1, of = 1) => {
    const children = below.get(task.id) ?? [];
    const row = { id: task.id, task, level, children: children.length, nth, of };
    const place = out.push(row);
    if (isOpen(row)) children.forEach((child, index) => add(child, level + 1, index + 1, children.length));
    if (!plain && out.length === place && !matches(task, task.agent)) out.pop();
  };
  const tops = [...runs.values()].map((run) => ({ at: run.started, run }));
  for (const task of below.get("") ?? []) tops.push({ at: task.started, task });
  tops.sort((one, two) => (two.at ?? 0) - (one.at ?? 0));
  for (const [index, { run, task }] of tops.entries()) {
    if (task) {
      add(task, 1, index + 1, tops.length);
      continue;
    }
    const children = below.get(run.id) ?? [];
    const row = { id: run.id, run, level: 1, children: children.length, nth: index + 1, of: tops.length };
    const own = plain || matches(run, runName(run));
    const place = out.push(row);
    if (isOpen(row)) children.forEach((child, nth) => add(child, 2, nth + 1, children.length));
    const hidden = out.length === place && !own && !(!isOpen(row) && children.some((child) => matches(child, child.agent)));
    if (hidden) out.pop();
  }
  return out;
}

/** Takes the model as it is. */
export function render() {
  rows = state.ready ? flatten() : [];
  const none = at("tree-none");
  show(none, rows.length === 0);
  if (!state.ready) return say(none, "Reading the lists…");
  const empty = runs.size === 0 && tasks.size === 0;
  say(none, empty ? "Nothing was run yet. POST /v1/runs or `adjutant run` starts something." : "Nothing fits the filter.");
  draw();
}

/** Draws the rows in the window. */
export function draw() {
  const tree = at("tree");
  const scroller = at("work");
  const height = parseFloat(getComputedStyle(tree).getPropertyValue("--row")) || 30;
  tree.style.height = `${rows.length * height}px`;
  const above = scroller.getBoundingClientRect().top - tree.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(above / height) - SPARE);
  const last = Math.min(rows.length, Math.ceil((above + scroller.clientHeight) / height) + SPARE);
  const seen = new Set();
  for (let index = first; index < last; index += 1) {
    const row = rows[index];
    seen.add(row.id);
    let element = shown.get(row.id);
    if (!element) {
      element = build(row);
      shown.set(row.id, element);
      tree.append(element.row);
    }
    fill(element, row, index * height);
  }
  for (const [id, element] of shown) {
    if (seen.has(id)) continue;
    element.row.remove();
    shown.delete(id);
  }
  if (focused && seen.has(focused)) tree.setAttribute("aria-activedescendant", `row-${focused}`);
  else tree.removeAttribute("aria-activedescendant");
}

function build(row) {
  const caret = h("span", { class: "caret", "aria-hidden": "true" });
  const name = h("span", { class: "name" });
  const extra = h("span", { class: "extra" });
  const [id, attempt, status, word, old] = ["id", "num attempt", "status", "word", "num age"].map((kind) => h("span", { class: kind }));
  const first = h("span", { class: "first" }, caret, name, extra);
  status.append(word);
  const element = h("div", { class: row.run ? "row run" : "row", role: "treeitem", id: `row-${row.id}`, "data-id": row.id }, first, id, attempt, status, old);
  return { row: element, caret, first, name, extra, id, attempt, status, word, old, family: null };
}

function fill(element, row, top) {
  const item = row.run ?? row.task;
  element.row.style.transform = `translateY(${top}px)`;
  element.first.style.paddingInlineStart = `${(row.level - 1) * 18}px`;
  element.row.setAttribute("aria-level", row.level);
  element.row.setAttribute("aria-posinset", row.nth);
  element.row.setAttribute("aria-setsize", row.of);
  element.row.setAttribute("aria-selected", String(row.id === selected()));
  element.row.classList.toggle("at", row.id === focused);
  if (row.children) element.row.setAttribute("aria-expanded", String(isOpen(row)));
  else element.row.removeAttribute("aria-expanded");
  say(element.name, row.run ? runName(row.run) : row.task.agent || "task");
  say(element.extra, row.children && !isOpen(row) ? `${row.children} ${row.children === 1 ? "task" : "tasks"}` : "");
  say(element.id, brief(row.id));
  say(element.attempt, row.task && row.task.attempt > 0 ? String(row.task.attempt) : "");
  say(element.word, word(item.status));
  if (element.family !== item.status) {
    element.status.querySelector("svg")?.remove();
    element.status.prepend(glyph(item.status));
    element.status.className = `status ${family(item.status)}`;
    element.family = item.status;
  }
  say(element.old, shortAge(item.started));
}

function clicked(event) {
  const id = event.target.closest(".row")?.dataset.id;
  if (!id) return;
  focused = id;
  if (event.target.closest(".caret")) toggle(rows.find((row) => row.id === id));
  else open(id);
  draw();
}

function toggle(row, to = !isOpen(row)) {
  toggled.set(row.id, to);
  render();
}

function pressed(event) {
  const index = rows.findIndex((row) => row.id === focused);
  const row = rows[index];
  if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
  const parent = () => rows.slice(0, index).reverse().find((other) => other.level < row.level);
  const moves = {
    ArrowDown: () => rows[index + 1],
    ArrowUp: () => rows[index - 1],
    Home: () => rows[0],
    End: () => rows.at(-1),
    PageDown: () => rows[Math.min(rows.length - 1, index + 15)],
    PageUp: () => rows[Math.max(0, index - 15)],
    ArrowRight: () => (row.children && !isOpen(row) ? toggle(row, true) : rows[index + 1]?.level > row.level ? rows[index + 1] : null),
    ArrowLeft: () => (row.children && isOpen(row) ? toggle(row, false) : parent()),
    Enter: () => open(row.id),
    " ": () => open(row.id),
  };
  if (!moves[event.key]) return;
  event.preventDefault();
  const to = moves[event.key]();
  if (to) moveTo(to);
  else draw();
}

function moveTo(row) {
  focused = row.id;
  const index = rows.findIndex((other) => other.id === row.id);
  const [tree, scroller] = [at("tree"), at("work")];
  const height = parseFloat(getComputedStyle(tree).getPropertyValue("--row")) || 30;
  const top = tree.getBoundingClientRect().top - scroller.getBoundingClientRect().top + index * height;
  // The bar with the filter stays above the rows.
  const bar = 84;
  if (top < bar) scroller.scrollTop += top - bar;
  else if (top + height > scroller.clientHeight) scroller.scrollTop += top + height - scroller.clientHeight;
  draw();
}
