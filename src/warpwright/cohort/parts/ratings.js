// Ratings of pairs: kept in this browser, saved to and loaded from a table, since a page from a disk can write no file.
const WORDS = { 1: "good", 2: "doubtful", 3: "bad" };
const CLASSES = { good: "good", doubtful: "warn", bad: "bad" };
const HEAD = ["id", "rating", "note", "rater", "time"];
const FORMULA = /^'*[=+\-@]/;
const PLACE = `warpwright ratings ${location.pathname}`;
const byId = new Map(rows.map((row) => [row.dataset.id, row]));
const note = document.getElementById("note");
const rater = document.getElementById("rater");
const marks = [...document.querySelectorAll("[data-rating]")];
let ratings = new Map();
let chosen = null;

function remember() {
  try {
    localStorage.setItem(PLACE, JSON.stringify({ rater: rater.value, ratings: [...ratings] }));
  } catch {
    tell("this browser keeps nothing: save before you leave");
  }
}

function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(PLACE)) ?? { rater: "", ratings: [] };
    rater.value = String(kept.rater);
    ratings = new Map(kept.ratings.filter(([, one]) => sound(one)));
  } catch {
    ratings = new Map();
  }
}

function sound(one) {
  return ["rating", "note", "rater", "time"].every((key) => typeof one[key] === "string") && (one.rating === "" || Object.hasOwn(CLASSES, one.rating));
}

function tell(more) {
  const count = rows.filter((row) => ratings.get(row.dataset.id)?.rating).length;
  document.getElementById("rated").textContent = `${count} of ${rows.length} rated${more ? `; ${more}` : ""}`;
}

function show(row) {
  const one = ratings.get(row.dataset.id);
  const cell = row.querySelector(".mine");
  cell.dataset.v = one?.rating ? String(["bad", "doubtful", "good"].indexOf(one.rating)) : "";
  cell.textContent = "";
  for (const [name, text] of [[CLASSES[one?.rating], one?.rating], ["said", one?.note]]) {
    if (!text) continue;
    const span = document.createElement("span");
    span.className = name;
    span.textContent = text;
    cell.append(span);
  }
}

function choose(row) {
  if (chosen) {
    chosen.classList.remove("now");
    chosen.removeAttribute("aria-current");
  }
  chosen = row;
  row.classList.add("now");
  row.setAttribute("aria-current", "true");
  row.tabIndex = -1;
  row.focus({ preventScroll: true });
  row.scrollIntoView({ block: "center" });
  bar();
}

function bar() {
  const one = chosen && ratings.get(chosen.dataset.id);
  document.getElementById("now").textContent = chosen ? chosen.dataset.id : "No pair is chosen";
  note.value = one?.note ?? "";
  for (const mark of marks) mark.setAttribute("aria-pressed", String(mark.dataset.rating === one?.rating));
}

function change(what) {
  if (!chosen) return;
  const id = chosen.dataset.id;
  const one = { rating: "", note: "", ...ratings.get(id), ...what, rater: rater.value.trim(), time: new Date().toISOString() };
  if (one.rating || one.note) ratings.set(id, one);
  else ratings.delete(id);
  show(chosen);
  bar();
  tell();
  remember();
}

function step(way) {
  const seen = [...body.rows].filter((row) => !row.hidden);
  const at = seen.indexOf(chosen);
  const next = at < 0 ? seen[way > 0 ? 0 : seen.length - 1] : seen[at + way];
  if (next) choose(next);
}

// A cell of a table of tabs: one line, and nothing that a spreadsheet would take for a formula.
function harmless(text) {
  const line = text.replace(/[\t\r\n]+/g, " ");
  return FORMULA.test(line) ? `'${line}` : line;
}

function tsv() {
  const lines = rows.filter((row) => ratings.has(row.dataset.id)).map((row) => {
    const id = row.dataset.id;
    return HEAD.map((name) => harmless(name === "id" ? id : ratings.get(id)[name])).join("\t");
  });
  return `${[HEAD.join("\t"), ...lines].join("\n")}\n`;
}

function load(text) {
  const [head, ...lines] = text.replace(/^\ufeff/, "").split(/\r?\n/).filter(Boolean).map((line) => line.split("\t"));
  if (!head?.includes("id") || !head.includes("rating")) return tell("that file has no columns id and rating");
  let taken = 0;
  let left = 0;
  for (const line of lines) {
    const found = Object.fromEntries(head.map((name, k) => [name, (line[k] ?? "").replace(/^'(?='*[=+\-@])/, "")]));
    const one = Object.fromEntries(HEAD.slice(1).map((name) => [name, found[name] ?? ""]));
    if (byId.has(found.id) && sound(one) && (one.rating || one.note)) {
      ratings.set(found.id, one);
      taken += 1;
    } else left += 1;
  }
  rows.forEach(show);
  bar();
  tell(`${taken} loaded${left ? `, ${left} are of no pair here or no rating` : ""}`);
  remember();
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([tsv()], { type: "text/tab-separated-values" }));
  link.download = "ratings.tsv";
  link.click();
  URL.revokeObjectURL(link.href);
}

for (const mark of marks) {
  mark.addEventListener("click", () => change({ rating: mark.getAttribute("aria-pressed") === "true" ? "" : mark.dataset.rating }));
}
note.addEventListener("change", () => change({ note: note.value.trim() }));
rater.addEventListener("change", remember);
note.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && chosen) choose(chosen);
});
find.addEventListener("keydown", (event) => {
  if (event.key === "Enter") step(1);
});
body.addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  if (row && !event.target.closest("a")) choose(row);
});
document.getElementById("save").addEventListener("click", save);
document.getElementById("load").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  if (file) load(await file.text());
  event.target.value = "";
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input")) return;
  if (event.key === "Enter" && event.target.closest("button, a")) return;
  const keys = {
    j: () => step(1),
    k: () => step(-1),
    0: () => change({ rating: "" }),
    n: () => chosen && note.focus(),
    Enter: () => chosen?.querySelector(".files a")?.click(),
  };
  for (const [key, rating] of Object.entries(WORDS)) keys[key] = () => change({ rating });
  if (!Object.hasOwn(keys, event.key)) return;
  event.preventDefault();
  keys[event.key]();
});
recall();
rows.forEach(show);
tell();
