"use strict";
// The list of items: searched, filtered, opened. Whatever comes from the run is set as text, never as markup.
(async () => {
  const root = document.getElementById("explorer");
  if (!root) return;
  const PAGE = 25;
  const FLAGS = [[1, "tie"], [2, "shots dropped"], [4, "in windows"], [8, "input cut"], [16, "lost by an endpoint"], [32, "abstained"]];

  const make = (tag, kind, ...inside) => {
    const element = document.createElement(tag);
    if (kind) element.className = kind;
    element.append(...inside);
    return element;
  };
  const own = (text, tag = "bdi", kind = "") => make(tag, kind, text);

  const unpack = async () => {
    const { packed } = JSON.parse(document.getElementById("packed").textContent);
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  };
  if (typeof DecompressionStream === "undefined") {
    root.replaceChildren(make("p", "note", "This browser cannot unpack the items; a version of 2023 or newer can."));
    return;
  }
  const data = await unpack();
  const string = (n) => (n < 0 ? null : data.strings[n]);

  // Of every cell, item -> its place in the cell's columns.
  for (const cell of data.cells) cell.at = new Map(cell.i.map((item, at) => [item, at]));
  const haystacks = data.tasks.map((task) =>
    task.items.map(([, uid, fields, target]) => [uid, ...Object.values(fields), string(target) ?? ""].join("\n").toLowerCase()));

  // ── filters ────────────────────────────────────────────────────────────────────────────────────────────────────────
  const state = { task: 0, series: 0, budget: null, seed: null, outcome: "all", truth: -2, answer: -2, query: "", page: 0 };
  // A good answer in words need not be one of the references: it is said whether it is one, and its metrics judge it.
  const WORDS = {
    label: { wrong: "wrong", right: "right", hard: "wrong by every method", truth: "true label", ofThem: "of them wrong", no: "✗", not: "wrong" },
    answer: { wrong: "other than the references", right: "as a reference", hard: "as a reference by no method", truth: "reference", ofThem: "of them other than the references", no: "·", not: "" },
  };
  const words = () => (data.tasks[state.task].kind === "answer" ? WORDS.answer : WORDS.label);
  const OUTCOMES = {
    all: ["all items", () => true],
    wrong: ["wrong", (a) => a.right === 0],
    right: ["right", (a) => a.right === 1],
    none: ["not answered", (a) => a.answer < 0],
    disagree: ["methods disagree", (a) => new Set(others(a.item).map((o) => o.answer)).size > 1],
    hard: ["wrong by every method", (a) => others(a.item).every((o) => o.right !== 1)],
    ...Object.fromEntries(FLAGS.map(([bit, name]) => [`f${bit}`, [name, (a) => (a.flags & bit) !== 0]])),
  };
  const unique = (values) => [...new Set(values)];
  const cellsOf = () => data.cells.filter((c) => c.task === state.task && c.series === state.series);
  const current = () => {
    const cells = cellsOf();
    return cells.find((c) => c.budget === state.budget && c.seed === state.seed) ?? cells.find((c) => c.budget === state.budget) ?? cells[0];
  };
  const answerIn = (cell, item) => {
    const at = cell ? cell.at.get(item) : undefined;
    if (at === undefined) return { item, at: -1, answer: -2, right: null, flags: 0, sure: null };
    return { item, at, answer: cell.a[at], right: cell.v[at], flags: cell.f[at], sure: cell.p[at] };
  };
  // What every method answered to an item, at the label budget and seed in view or the nearest it has.
  const others = (item) => {
    const found = [];
    for (let series = 0; series < data.series.length; series++) {
      const cells = data.cells.filter((c) => c.task === state.task && c.series === series);
      const same = cells.filter((c) => c.budget === state.budget);
      const pool = same.length ? same : cells.filter((c) => c.budget === null).length ? cells.filter((c) => c.budget === null) : [];
      const cell = pool.find((c) => c.seed === state.seed) ?? pool[0];
      if (cell && cell.at.has(item)) found.push({ ...answerIn(cell, item), series });
    }
    return found;
  };

  const select = (key, label, options) => {
    const control = make("select");
    control.name = key;
    for (const [value, text] of options) {
      const option = make("option", "", text);
      option.value = JSON.stringify(value);
      control.append(option);
    }
    control.value = JSON.stringify(state[key]);
    if (control.selectedIndex < 0 && options.length) {
      control.selectedIndex = 0;
      state[key] = options[0][0];
    }
    control.addEventListener("change", () => {
      state[key] = JSON.parse(control.value);
      if (key === "task" || key === "series") settle();
      if (key === "task") state.truth = state.answer = -2;
      state.page = 0;
      draw();
    });
    return make("label", "", label, control);
  };
  // The largest label budget and first seed of the method in view, unless it has those that were in view before.
  const settle = () => {
    const budgets = unique(cellsOf().map((c) => c.budget));
    if (!budgets.includes(state.budget)) state.budget = budgets.at(-1) ?? null;
    const seeds = unique(cellsOf().filter((c) => c.budget === state.budget).map((c) => c.seed));
    if (!seeds.includes(state.seed)) state.seed = seeds[0] ?? null;
  };
  const seriesHere = () => unique(data.cells.filter((c) => c.task === state.task).map((c) => c.series)).sort((a, b) => a - b);

  const search = make("input");
  search.type = "search";
  search.placeholder = "words of a text, a label, an answer, an id";
  search.autocomplete = "off";
  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      state.query = search.value.trim().toLowerCase();
      state.page = 0;
      list();
    }, 120);
  });

  const counted = (values) => {
    const counts = new Map();
    for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
    const said = (n) => (n < 0 ? "(none)" : clip(string(n)));
    return [[-2, "any"], ...[...counts].filter(([n]) => n > -2).sort((a, b) => b[1] - a[1]).slice(0, 200).map(([n, c]) => [n, `${said(n)} (${c})`])];
  };
  const capital = (text) => text[0].toUpperCase() + text.slice(1);
  const clip = (text) => (text.length > 60 ? `${text.slice(0, 59)}…` : text);
  const filters = make("div", "filters");
  const results = make("div");
  results.setAttribute("aria-live", "polite");

  const controls = () => {
    const cell = current();
    const items = data.tasks[state.task].items;
    const budgets = unique(cellsOf().map((c) => c.budget));
    const seeds = unique(cellsOf().filter((c) => c.budget === state.budget).map((c) => c.seed));
    const parts = [make("label", "wide", "Search", search)];
    if (data.tasks.length > 1) parts.push(select("task", "Task", data.tasks.map((t, n) => [n, t.name])));
    parts.push(select("series", "Method", seriesHere().map((n) => [n, data.series[n] ?? "?"])));
    if (budgets.length > 1) parts.push(select("budget", "Labels owned", budgets.map((b) => [b, b === null ? "none" : String(b)])));
    if (seeds.length > 1) parts.push(select("seed", "Seed", seeds.map((s) => [s, String(s)])));
    parts.push(select("outcome", "Outcome", Object.entries(OUTCOMES).map(([key, [text]]) => [key, words()[key] ?? text])));
    parts.push(select("truth", capital(words().truth), counted(items.map((item) => item[3]))));
    parts.push(select("answer", "Answer", counted(cell ? cell.a : [])));
    return parts;
  };

  // ── the list ───────────────────────────────────────────────────────────────────────────────────────────────────────
  const fits = (answer, item) => {
    if (state.truth !== -2 && data.tasks[state.task].items[item][3] !== state.truth) return false;
    if (state.answer !== -2 && answer.answer !== state.answer) return false;
    if (!OUTCOMES[state.outcome][1](answer)) return false;
    if (!state.query) return true;
    const said = `${haystacks[state.task][item]}\n${(string(answer.answer) ?? "").toLowerCase()}`;
    return state.query.split(/\s+/).every((word) => said.includes(word));
  };

  const list = () => {
    const cell = current();
    const items = data.tasks[state.task].items;
    const found = items.map((_, n) => answerIn(cell, n)).filter((answer) => answer.at >= 0 && fits(answer, answer.item));
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const turn = (by, text) => {
      const button = make("button", "", text);
      button.type = "button";
      button.disabled = state.page + by < 0 || state.page + by >= pages;
      button.addEventListener("click", () => {
        state.page += by;
        list();
      });
      return button;
    };
    const shown = found.slice(state.page * PAGE, (state.page + 1) * PAGE);
    const wrong = found.filter((a) => a.right === 0).length;
    const count = make("span", "count", `${found.length.toLocaleString("en")} of ${items.length.toLocaleString("en")} items, ${wrong.toLocaleString("en")} ${words().ofThem}`);
    const pager = make("span", "", turn(-1, "Back"), ` ${state.page + 1} of ${pages} `, turn(1, "Next"));
    const key = make("div", "key", ...["", "place", "text", words().truth, "answer", "sure"].map((text) => make("span", "", text)));
    results.replaceChildren(make("div", "found", count, pages > 1 ? pager : ""), shown.length ? key : "", make("div", "items", ...shown.map((a) => row(cell, a))));
  };

  const row = (cell, answer) => {
    const [position, , fields, target] = data.tasks[state.task].items[answer.item];
    const mark = answer.right === 1 ? "✓" : answer.right === 0 ? words().no : "–";
    const kind = answer.right === 1 ? "right" : answer.right === 0 ? words().not : "";
    const markElement = make("span", `mark ${kind}`, mark);
    markElement.title = answer.right === 1 ? words().right : answer.right === 0 ? words().wrong : "not answered";
    const summary = make("summary", "",
      markElement,
      make("span", "place", String(position)),
      make("span", "clip", own(Object.values(fields).join(" · ").slice(0, 400))),
      make("span", "label truth", own(string(target) ?? "")),
      make("span", `label given ${kind}`, own(string(answer.answer) ?? (answer.flags & 32 ? "abstained" : "none"))),
      make("span", "sure", answer.sure === null ? "" : `${Math.round(answer.sure * 100)} %`));
    const details = make("details", "item", summary);
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(body(cell, answer));
    });
    return details;
  };

  // ── one item ───────────────────────────────────────────────────────────────────────────────────────────────────────
  const body = (cell, answer) => {
    const [, uid, fields, target, more, choices] = data.tasks[state.task].items[answer.item];
    const { at } = answer;
    const parts = [];
    const part = (title, ...inside) => parts.push(make("h4", "", title), ...inside);
    const named = Object.keys(fields).length > 1;
    part("Text", ...Object.entries(fields).map(([key, value]) => make("p", "text", ...(named ? [make("b", "", own(key), ": ")] : []), own(value))));
    if (choices.length) part("Choices", make("ol", "", ...choices.map((n) => make("li", "", own(string(n))))));
    const accepted = [target, ...more].map(string).filter((text) => text !== null);
    part("Right answer", make("p", "text", own(accepted.join("  |  "))));
    const said = string(answer.answer);
    part("Answer", make("p", "text", said === null ? "none" : own(said)));
    const notes = FLAGS.filter(([bit]) => answer.flags & bit).map(([, name]) => name);
    if (cell.n[at] !== null) notes.push(`prompt of ${cell.n[at].toLocaleString("en")} tokens`);
    notes.push(uid);
    for (const [key, title] of [["h", "Held back"], ["w", "Why"], ["x", "What the model wrote"]]) {
      const text = cell[key] ? string(cell[key][at]) : null;
      if (text !== null) part(title, make(key === "x" ? "pre" : "p", key === "x" ? "" : "text", own(text)));
    }
    parts.push(make("p", "flags", notes.join(" · ")));
    if (cell.k && cell.k[at].length) part("Scores, the likeliest first", scores(cell.k[at]));
    const rest = others(answer.item);
    if (rest.length > 1) part("Every method on this item", methods(rest));
    if (cell.d && cell.d[at].length) part("Demonstrations, in prompt order", demonstrations(cell.d[at]));
    if (cell.q && cell.q[at] && cell.q[at].length) {
      part("The exact prompt", own(cell.q[at].map((n) => data.lines[n]).join("\n"), "pre"));
    } else if (cell.d && cell.n[at] !== null) {
      part("The exact prompt", make("p", "flags", "This run did not keep its prompts: icl prompt SUITE --item N writes it again."));
    } else if (!cell.d && cell.n[at] !== null) {
      part("The exact prompt", make("p", "flags", "Scores, demonstrations and prompt are listed for the first seed."));
    }
    return make("div", "body", ...parts);
  };

  const scores = (flat) => {
    const grid = make("div", "scores", ...["answer", "", "nats", "probability"].map((text) => make("span", "head", text)));
    for (let n = 0; n < flat.length; n += 3) {
      const [name, sum, probability] = flat.slice(n, n + 3);
      const meter = make("meter");
      meter.value = probability ?? 0;
      meter.hidden = probability === null;
      grid.append(own(string(name), "span"), meter, make("span", "", sum === null ? "" : sum.toFixed(2)), make("span", "", probability === null ? "" : `${(probability * 100).toFixed(1)} %`));
    }
    return grid;
  };

  const methods = (rest) =>
    make("ul", "", ...rest.map((other) => {
      const kind = other.right === 1 ? "right" : other.right === 0 ? words().not : "";
      const sure = other.sure === null ? "" : ` ${Math.round(other.sure * 100)} %`;
      const said = string(other.answer) ?? (other.flags & 32 ? "abstained" : "none");
      return make("li", "", make("b", "", own(data.series[other.series] ?? "?")), ": ", make("span", kind, other.right === 1 ? "✓ " : other.right === 0 ? `${words().no} ` : "", own(said)), sure);
    }));

  const demonstrations = (rows) =>
    make("ol", "", ...rows.map((n) => {
      const [uid, label, text] = data.rows[n];
      if (text === null) return make("li", "", `row ${uid} (the run did not keep its text)`);
      return make("li", "", make("b", "", own(string(label) ?? "?")), ": ", own(text));
    }));

  const draw = () => {
    filters.replaceChildren(...controls());
    list();
  };

  // A cell of a confusion matrix shows its items.
  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target.closest("rect[data-row]") : null;
    const figure = target ? target.closest("details") : null;
    const place = target ? target.closest("[data-task]") : null;
    if (!target || !figure || !place) return;
    const labels = JSON.parse(place.dataset.labels);
    state.task = Number(place.dataset.task);
    state.series = Number(figure.querySelector("[data-series]").dataset.series);
    state.budget = undefined; // the matrix is of the largest
    settle();
    const number = (text) => (text === undefined ? -1 : data.strings.includes(text) ? data.strings.indexOf(text) : -3);
    state.truth = number(labels[Number(target.dataset.row)]);
    state.answer = number(labels[Number(target.dataset.column)]);
    state.outcome = "all";
    state.query = search.value = "";
    state.page = 0;
    draw();
    document.getElementById("items").scrollIntoView();
  });

  const first = Number(root.dataset.first);
  state.series = seriesHere().includes(first) ? first : seriesHere()[0] ?? 0;
  settle();
  root.replaceChildren(filters, results);
  draw();
  root.dataset.ready = "yes";
})();

// In print whatever is folded is shown, but for single items.
const unfolded = [];
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details:not(.item):not([open])")) {
    each.open = true;
    unfolded.push(each);
  }
});
addEventListener("afterprint", () => {
  for (const each of unfolded.splice(0)) each.open = false;
});
