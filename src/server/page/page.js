// The live page: snapshots first, events on top, and one render for all that changed.
//
// What is shown follows from the server alone, and which row is open from the address, so a reload
// at any moment shows the same again.

import * as api from "./api.js";
import { at, confirm, show } from "./dom.js";
import * as detail from "./detail.js";
import * as model from "./model.js";
import * as side from "./side.js";
import { follow } from "./stream.js";
import * as tree from "./tree.js";
import * as waiting from "./waiting.js";

const { state } = model;

/** Opens a run or a task by its id, or closes what is open. */
function go(id) {
  const back = detail.current();
  if (id) location.hash = id;
  else history.pushState(null, "", location.pathname);
  shownByAddress();
  if (id) at("detail").focus({ preventScroll: true });
  else if (back) at("tree").focus({ preventScroll: true });
}

function shownByAddress() {
  // Ids are plain; whatever else an address says finds nothing.
  const id = location.hash.slice(1).replace(/[^\w-]/g, "") || null;
  if (id !== detail.current()) detail.open(id);
  model.touch();
}

function linked(to) {
  if (state.link !== to) state.since = Date.now();
  state.link = to;
  model.touch();
}

function render() {
  waiting.render();
  tree.render();
  detail.refresh();
  side.render();
}

function wire() {
  waiting.start(go);
  tree.start(go, detail.current);
  detail.start(go);
  model.onChange(render);
  addEventListener("hashchange", shownByAddress);
  addEventListener("popstate", shownByAddress);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && detail.current() && !at("confirm").open) go(null);
    const typing = event.target.closest?.("input, textarea");
    if (event.key === "/" && !typing) {
      event.preventDefault();
      at("filter").focus();
    }
  });
  const tabs = [...document.querySelectorAll("nav button")];
  for (const tab of tabs) {
    tab.addEventListener("click", () => {
      document.body.dataset.tab = tab.dataset.tab;
      for (const other of tabs) other.setAttribute("aria-pressed", String(other === tab));
      go(null);
    });
  }
  at("older").addEventListener("click", () => model.readOlderRuns());
  at("leave").addEventListener("click", () => confirm({
    head: "Log out of this browser?", text: "`adjutant link` prints a link to come back by.", yes: "Log out",
    act: async () => {
      await api.leave();
      location.assign("/");
    },
  }));
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) model.poll();
  });
}

wire();
model.readAll().then(() => shownByAddress());
setInterval(() => {
  model.sample();
  model.touch();
}, 1000);
setInterval(() => {
  if (!document.hidden && state.link !== "out") model.poll();
}, 5000);
follow({
  open(fresh) {
    linked("live");
    // Without a number to go on from, what happened meanwhile is in the lists alone.
    if (fresh) model.readAll();
  },
  event: model.take,
  gap({ from, to, reason }) {
    state.missed = to && from ? to - from + 1 : 0;
    linked("behind");
    model.readAll(reason === "reset").then(() => linked("live"));
  },
  lost(status) {
    linked(status === 401 || status === 403 ? "out" : "lost");
  },
});
show(at("detail"), false);
