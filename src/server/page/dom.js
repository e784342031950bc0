// Elements, times and the one dialog. Whatever an agent said becomes a text node, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** Makes an element. Keys that begin with `on` are listeners, `text` is its text, the rest attributes. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "text") element.textContent = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Makes an element of a drawing. */
export function s(tag, props = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(props)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export const at = (id) => document.getElementById(id);

/** Sets a text only where it differs, so that a selection in it stays. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function show(element, visible) {
  element.hidden = !visible;
}

// One shape a status, so that color is never the only difference.
const SHAPES = {
  pending: [["circle", { cx: 6, cy: 6, r: 3.5, fill: "none" }]],
  running: [["circle", { cx: 6, cy: 6, r: 4.25, fill: "none" }], ["circle", { cx: 6, cy: 6, r: 1.75, class: "full" }]],
  suspended: [["path", { d: "M6 1.2 10.8 6 6 10.8 1.2 6Z", class: "full" }]],
  pass: [["path", { d: "M2 6.5 4.8 9.2 10 3.2", fill: "none" }]],
  blocked: [["path", { d: "M2.8 2.8 9.2 9.2M9.2 2.8 2.8 9.2", fill: "none" }]],
  cancelled: [["path", { d: "M2.5 6H9.5", fill: "none" }]],
};

/** Statuses of runs that look like one of a task. */
const ALIKE = { waiting: "suspended", timeout: "blocked", failed: "blocked", interrupted: "blocked", left: "pending" };

/** The family of a status, which is also its class. */
export const family = (status) => (SHAPES[status] ? status : ALIKE[status] ?? "pending");

const WORDS = { suspended: "waiting", pass: "passed" };

/** The word that people read for a status. */
export const word = (status) => WORDS[status] ?? status;

export function glyph(status) {
  const shape = SHAPES[family(status)];
  const parts = shape.map(([tag, props]) => s(tag, props));
  return s("svg", { viewBox: "0 0 12 12", class: `glyph ${family(status)}`, "aria-hidden": "true" }, ...parts);
}

let skew = 0;

/** Learns the server's clock from a `Date` header, so that ages do not depend on this machine's. */
export function learnClock(date) {
  const told = Date.parse(date ?? "");
  if (!Number.isNaN(told) && Math.abs(told - Date.now()) > 1500) skew = told - Date.now();
}

export const now = () => Date.now() + skew;

/** Times come as seconds or as milliseconds; here they are milliseconds. */
export const ms = (time) => (time === null || time === undefined ? null : time < 1e11 ? time * 1000 : time);

/** A length of time in at most two units. */
export function span(length) {
  const secs = Math.max(0, Math.floor(length / 1000));
  if (secs < 60) return `${secs} s`;
  const mins = Math.floor(secs / 60);
  if (mins < 60) return `${mins} min${mins < 10 && secs % 60 ? ` ${secs % 60} s` : ""}`;
  const hours = Math.floor(mins / 60);
  return hours < 48 ? `${hours} h ${mins % 60} min` : `${Math.floor(hours / 24)} d`;
}

export const age = (time) => (time ? span(now() - time) : "");

/** A time's age in one unit, for columns. */
export function shortAge(time) {
  if (!time) return "";
  const secs = Math.max(0, Math.floor((now() - time) / 1000));
  if (secs < 60) return `${secs} s`;
  if (secs < 3600) return `${Math.floor(secs / 60)} min`;
  return secs < 172_800 ? `${Math.floor(secs / 3600)} h` : `${Math.floor(secs / 86_400)} d`;
}

export const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });

/** A value as text: strings as they are, the rest as JSON. */
export function text(value) {
  if (value === undefined || value === null) return "";
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

/** A long text is cut, and shown whole when asked for. */
export function body(value, max = 8000) {
  const whole = text(value);
  const pre = h("pre", { tabindex: whole.length > 600 ? "0" : null });
  pre.textContent = whole.length > max ? whole.slice(0, max) : whole;
  if (whole.length <= max) return pre;
  const more = h("button", { type: "button", class: "quiet", text: `Show all ${whole.length.toLocaleString()} characters` });
  more.addEventListener("click", () => {
    pre.textContent = whole;
    more.remove();
  });
  return h("div", {}, pre, more);
}

/** An id without its kind and its tail. */
export const brief = (id) => id.replace(/^[A-Za-z]+-/, "").slice(0, 8);

/** Tells something that was done, for eyes and for screen readers. */
export function tell(line) {
  const told = at("told");
  told.textContent = line;
  told.classList.add("shown");
  clearTimeout(tell.timer);
  tell.timer = setTimeout(() => told.classList.remove("shown"), 4000);
}

/** Asks before anything is changed; does it when it is confirmed and shows what went wrong. */
export function confirm({ head, text: line, body: shown, yes, danger = false, act }) {
  const dialog = at("confirm");
  const [button, error, pre] = [at("confirm-yes"), at("confirm-error"), at("confirm-body")];
  at("confirm-head").textContent = head;
  at("confirm-text").textContent = line;
  pre.textContent = shown ?? "";
  show(pre, shown !== undefined);
  show(error, false);
  button.textContent = yes;
  button.className = danger ? "danger" : "main";
  button.disabled = false;
  at("confirm-no").onclick = () => dialog.close();
  button.onclick = async () => {
    button.disabled = true;
    try {
      await act();
      dialog.close();
    } catch (problem) {
      error.textContent = problem.message;
      show(error, true);
      button.disabled = false;
    }
  };
  dialog.showModal();
  (danger ? at("confirm-no") : button).focus();
}
