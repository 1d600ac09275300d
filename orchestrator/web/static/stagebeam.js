// What the pages do beyond links and forms: refresh in place, keys, theme, copying, local time. Nothing needs it.
"use strict";

const remembered = (name, otherwise) => {
  try { return localStorage.getItem(`stagebeam.${name}`) ?? otherwise; } catch { return otherwise; }
};
const remember = (name, value) => {
  try { localStorage.setItem(`stagebeam.${name}`, value); } catch { /* private windows forget */ }
};

// ---- refresh: only while something is unfinished, the tab is seen, and nobody is busy in the region
const live = document.getElementById("live");
const choice = document.getElementById("refresh");
const stale = document.getElementById("stale");
const MAX_PAUSE = 30;
let failures = 0;
let timer = 0;

const busy = () => {
  if (!live) return true;
  const selection = getSelection();
  return (selection && !selection.isCollapsed && live.contains(selection.anchorNode))
    || live.querySelector("details.act[open]")
    || (live.contains(document.activeElement) && document.activeElement.matches("input, select, textarea"));
};
const seconds = () => Number(choice ? choice.value : 0);
const later = () => {
  clearTimeout(timer);
  if (!live || live.dataset.live !== "on" || !seconds()) return;
  timer = setTimeout(refresh, 1000 * Math.min(seconds() * 2 ** failures, Math.max(MAX_PAUSE, seconds())));
};
const folds = new Map();
const refresh = () => {
  if (document.hidden || busy()) { later(); return; }
  folds.clear();
  document.querySelectorAll("#live details").forEach((item) => folds.set(path(item), item.open));
  window.htmx.ajax("GET", location.pathname + location.search, {
    target: "#live", select: "#live", swap: "morph:outerHTML", source: "#live",
    selectOOB: document.getElementById("live-rows") ? "#live-rows" : undefined,
  });
};
const path = (item) => {
  if (item.id) return item.id;
  const summary = item.querySelector("summary");
  const anchor = item.closest("[id]");
  return `${anchor ? anchor.id : ""}/${summary ? summary.textContent.trim().slice(0, 80) : ""}`;
};
document.addEventListener("htmx:afterSwap", () => {
  document.querySelectorAll("#live details").forEach((item) => { item.open = folds.get(path(item)) ?? item.open; });
  failures = 0;
  if (stale) stale.textContent = "";
  localTimes();
  const now = document.getElementById("live");
  if (now && now.dataset.live !== "on") clearTimeout(timer); else later();
});
const failed = () => {
  failures = Math.min(failures + 1, 5);
  if (stale) stale.textContent = `not refreshed since ${new Date().toLocaleTimeString()}: the server does not answer`;
  later();
};
document.addEventListener("htmx:sendError", failed);
document.addEventListener("htmx:responseError", failed);
document.addEventListener("visibilitychange", () => { if (!document.hidden) later(); });
if (choice && live) {
  choice.closest("label").hidden = live.dataset.live !== "on";
  choice.value = remembered("refresh", "5");
  choice.addEventListener("change", () => { remember("refresh", choice.value); later(); });
}
later();

// ---- theme
const theme = document.getElementById("theme");
if (theme) {
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    remember("theme", root.dataset.theme);
  });
}

// ---- keys: none of them changes anything
let row = -1;
const move = (by) => {
  const rows = [...document.querySelectorAll("[data-rows] tbody tr")];
  if (!rows.length) return;
  row = Math.max(0, Math.min(rows.length - 1, row + by));
  rows.forEach((item, at) => item.classList.toggle("at", at === row));
  const link = rows[row].querySelector("a");
  if (link) link.focus();
  rows[row].scrollIntoView({ block: "nearest" });
};
const follow = (rel) => { const link = document.querySelector(`a[rel="${rel}"]`); if (link) link.click(); };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const box = document.querySelector("[data-search]");
  if (event.key === "/" && box) { event.preventDefault(); box.focus(); box.select(); }
  else if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "]") follow("next");
  else if (event.key === "[") follow("prev");
  else if (event.key === "Escape") document.querySelectorAll("details.act[open]").forEach((item) => { item.open = false; });
});

// ---- copying and local time
document.addEventListener("click", (event) => {
  const code = event.target.closest("code.copy");
  if (!code || !navigator.clipboard) return;
  navigator.clipboard.writeText(code.textContent).then(() => {
    code.classList.add("copied");
    setTimeout(() => code.classList.remove("copied"), 900);
  });
});
function localTimes() {
  document.querySelectorAll("time[datetime]:not([data-local])").forEach((item) => {
    item.dataset.local = "yes";
    item.title += ` · here ${new Date(item.dateTime).toLocaleString()}`;
  });
}
localTimes();
