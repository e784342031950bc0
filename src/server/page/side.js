// The system beside the work: charts, operators, sessions, supervision, and the banners.

import { at, h, ms, now, s, say, shortAge, show, span } from "./dom.js";
import { BAR, counts, runs, samples, settled, state, tasks } from "./model.js";

const BARS = 60;
const [WIDE, HIGH] = [240, 36];

/** Parts that are made anew only where what they show differs. */
const said = new Map();
function renew(element, mark, make) {
  if (said.get(element.id) === mark) return;
  said.set(element.id, mark);
  element.replaceChildren(...make());
}

function chart(id, title) {
  const value = h("span", { class: "num value" });
  const lines = s("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const element = h("figure", { id }, h("figcaption", {}, h("span", { text: title }), value), lines);
  at("charts").append(element);
  return { value, lines };
}

let charts = null;

function drawCharts() {
  charts ??= { settled: chart("chart-settled", "Settled a minute"), running: chart("chart-running", "At work"), queued: chart("chart-queued", "Queued tasks and turns") };
  const end = Math.ceil(now() / BAR) * BAR;
  const bars = new Array(BARS).fill(0);
  for (const when of settled) {
    const bar = BARS - 1 - Math.floor((end - 1 - when) / BAR);
    if (bar >= 0 && bar < BARS) bars[bar] += 1;
  }
  const top = Math.max(1, ...bars);
  const step = WIDE / BARS;
  charts.settled.lines.replaceChildren(...bars.map((count, index) => s("rect", {
    x: index * step + 0.5, width: step - 1, y: HIGH - Math.max(1, (count / top) * HIGH), height: Math.max(1, (count / top) * HIGH), class: count ? "bar" : "bar none",
  })));
  say(charts.settled.value, String(settled.filter((when) => when > now() - 60_000).length));
  trace(charts.running, (one) => one.running);
  trace(charts.queued, (one) => one.queued + one.turns);
}

function trace({ value, lines }, of) {
  const top = Math.max(1, ...samples.map(of));
  const x = (one) => WIDE - ((now() - one.at) / (BARS * BAR)) * WIDE;
  const y = (one) => HIGH - 1.5 - (of(one) / top) * (HIGH - 4);
  const points = samples.map((one) => `${x(one).toFixed(1)},${y(one).toFixed(1)}`);
  const base = s("path", { d: `M0 ${HIGH - 0.5}H${WIDE}`, class: "base" });
  const area = points.length ? [s("path", { d: `M${points.join("L")}L${WIDE},${HIGH}L${x(samples[0]).toFixed(1)},${HIGH}Z`, class: "area" }), s("polyline", { points: points.join(" "), class: "line" })] : [];
  lines.replaceChildren(base, ...area);
  say(value, samples.length ? String(of(samples.at(-1))) : "0");
}

const dot = (good, label) => h("span", { class: `dot ${good ? "good" : "bad"}`, role: "img", "aria-label": label });
const none = (text) => [h("p", { class: "none", text })];

/** Sessions that are not attached and are shown, at most. */
const GONE = 6;

function sessions() {
  const order = (one, two) => Number(linked(two)) - Number(linked(one)) || ms(two.last_seen) - ms(one.last_seen) || (one.session_id < two.session_id ? -1 : 1);
  const list = [...state.sessions].sort(order);
  const attached = list.filter(linked).length;
  const lines = list.slice(0, Math.min(attached, 50) + GONE);
  say(at("sessions-count"), attached ? String(attached) : "");
  renew(at("sessions"), JSON.stringify(lines) + Math.floor(now() / 5000), () => list.length === 0 ? none("No session is attached.") : [
    ...lines.map((one) => h("div", { class: "line" },
      dot(linked(one), linked(one) ? "attached" : "not attached"),
      h("span", { class: "name", text: one.agent_id ?? one.operator_id ?? one.session_id }),
      h("span", { class: "dim", text: one.role }),
      h("span", { class: "dim num", text: `${shortAge(ms(one.last_seen))} ago` }))),
    list.length > lines.length ? h("p", { class: "none", text: `and ${list.length - lines.length} more` }) : "",
  ]);
}

const linked = (session) => session.attached ?? !["detached", "lapsed", "down"].includes(session.link);
const connected = (operator) => operator.connected ?? (operator.link === "connected" || operator.link === "up");

function operators() {
  const list = state.operators ?? [];
  say(at("operators-count"), list.length ? String(list.length) : "");
  renew(at("operators"), JSON.stringify(list), () => list.length === 0 ? none("No operator has logged in.") : list.map((one) => h("div", { class: "line" },
    dot(connected(one), connected(one) ? "connected" : "not connected"),
    h("span", { class: "name", text: one.sid }),
    h("span", { class: "dim", text: (one.roles ?? []).join(", ") }),
    h("span", { class: "dim num", text: load(one) }))));
}

/** What an operator was asked and has not said, or how long it is there. */
function load(one) {
  const parts = [one.parked && `${one.parked} parked`, one.unanswered && `${one.unanswered} asked`].filter(Boolean);
  return parts.join(", ") || (one.since ? shortAge(ms(one.since)) : "");
}

/** Who stands below whom, with restarts against their limits. */
function supervision() {
  const tree = state.supervision;
  const element = at("supervision");
  element.closest("section").hidden = tree === null;
  if (tree === null) return;
  const line = (level, name, told, right = "", over = false) => {
    const row = h("div", { class: `line${over ? " over" : ""}` }, h("span", { class: "name", text: name }), h("span", { class: "dim", text: told }), h("span", { class: "dim num", text: right }));
    row.style.paddingInlineStart = `${level * 14}px`;
    return row;
  };
  const times = (count) => `${count} ${count === 1 ? "restart" : "restarts"}`;
  renew(element, JSON.stringify(tree), () => [
    line(0, "root", tree.alive ? "runs" : "not started"),
    line(1, "state", "", times(tree.state?.restarts ?? 0)),
    ...(tree.spawners ?? []).map((one) => line(1, one.name, one.alive ? "" : "left dead",
      `${one.restarts} of ${one.limit} in ${span(one.within_ms)}`, !one.alive || one.restarts >= one.limit)),
    line(1, "sessions", `× ${tree.sessions ?? 0}`),
    line(1, "attempts", `× ${tree.attempts ?? 0}`),
  ]);
}

const LINK = { live: "live", connecting: "connecting", lost: "connection lost", behind: "catching up", out: "logged out" };

function head() {
  const word = LINK[state.link];
  say(at("link-word"), word);
  at("link").className = state.link;
  const count = counts();
  const open = [...runs.values()].filter((run) => run.status === "running" || run.status === "waiting").length;
  const pairs = [["runs open", open], ["waiting", count.suspended], ["at work", count.running], ["blocked", count.blocked], ["pending", count.pending], ["passed", count.pass]];
  renew(at("counts"), JSON.stringify(pairs), () => pairs.map(([name, value]) => h("div", { class: value ? name.split(" ")[0] : "zero" }, h("dd", { text: value.toLocaleString() }), h("dt", { text: name }))));
}

function banners() {
  const lines = [];
  if (state.link === "out") lines.push(["bad", "You are logged out.", "Run `adjutant link` on the server's machine and open what it prints."]);
  else if (state.link === "lost" && Date.now() - state.since > 1500) lines.push(["bad", "The stream is behind.", "The connection is lost; what you see may be old. It is tried again."]);
  else if (state.link === "behind") lines.push(["warn", "The stream is behind.", `${state.missed || "Some"} events are gone from the server's memory; the lists are read again.`]);
  else if (state.lateSince && Date.now() - state.lateSince > 1500) lines.push(["warn", "The stream is behind.", `It shows what happened ${shortAge(state.late)} ago and catches up.`]);
  if (state.problem && state.link !== "out") lines.push(["warn", "A list could not be read.", state.problem]);
  if (state.cut) lines.push(["quiet", `${state.cut.toLocaleString()} tasks are shown.`, "There are more; `GET /v1/tasks` lists all of them."]);
  if (state.paused) lines.push(["warn", "Dispatch is paused.", "New attempts wait until it is resumed."]);
  const busy = [...tasks.values()].some((task) => task.status === "running" || task.status === "pending");
  if (state.ready && busy && state.operators !== null && !state.operators.some(connected)) {
    lines.push(["quiet", "No operator is attached.", "Work for an operator waits until one logs in; questions can be answered here."]);
  }
  renew(at("banners"), JSON.stringify(lines), () => lines.map(([kind, first, rest]) => h("p", { class: `banner ${kind}` }, h("strong", { text: first }), h("span", { text: ` ${rest}` }))));
}

export function render() {
  head();
  banners();
  show(at("older"), Boolean(state.olderRuns));
  if (at("system").offsetParent === null) return;
  operators();
  sessions();
  supervision();
  drawCharts();
}
