// The second view: every model that the server knows, as a table and as a chart.

import { $, count, el, everyFrame, fixed } from "./dom.js";
import { get } from "./api.js";
import { tell } from "./notice.js";
import { drawChart, drawLegend } from "./chart.js";
import { accuracies, belongs, best, costs, numbers, scoresOf } from "./scores.js";

const COLUMNS = [
  { name: "Model", key: "name" },
  { name: "Zoo", key: "source" },
  { name: "Trained on", key: "dataset" },
  { name: "Joints", key: "joints", number: true },
  { name: "Input", key: "input", number: true },
  { name: "Params, M", key: "params_m", number: true },
  { name: "GFLOPs", key: "gflops", number: true },
  { name: "Claimed", key: "claimed", number: true, largeFirst: true },
  { name: "Measured", key: "measured", number: true, largeFirst: true },
];
const MENUS = { source: "every zoo", family: "every family", dataset: "every dataset", skeleton: "every skeleton" };

const ENTRY = "entry"; // the state in the history while a model's dialog is open

const all = { rows: [], kinds: [], families: [], sort: { key: "claimed", falling: true }, picked: new Set() };

/** A model with what the table shows of it. */
function toRow(model) {
  const [width, height] = model.input_size_wh ?? [];
  const row = { model, claimed: best(model, "claimed"), measured: best(model, "measured") };
  row.joints = Array.isArray(model.joints) ? model.joints.length : (model.joints ?? null);
  row.size = width ? `${width} × ${height}` : "";
  row.values = {
    ...model,
    joints: row.joints,
    input: width ? width * height : null,
    claimed: row.claimed?.value ?? null,
    measured: row.measured?.value ?? null,
  };
  const aliases = (model.aliases ?? []).join(" ");
  row.words = [model.name, model.source, model.family, model.dataset, model.skeleton, `${height}x${width} ${width}x${height}`, aliases]
    .join(" ")
    .toLowerCase();
  return row;
}

export function showModels(models) {
  all.rows = models.map(toRow);
  all.kinds = kindsOf(all.rows);
  const families = new Map();
  for (const { family } of models) families.set(family, (families.get(family) ?? 0) + 1);
  all.families = [...families.keys()].sort((a, b) => families.get(b) - families.get(a));
  for (const [key, every] of Object.entries(MENUS)) {
    const values = [...new Set(models.map((model) => model[key]).filter(Boolean))].sort();
    const options = values.map((value) => el("option", { value }, value));
    $(`by-${key}`).replaceChildren(el("option", { value: "" }, every), ...options);
  }
  offerAxes();
  showZoo();
}

/** Draw the view, once it is seen. */
export function showZoo() {
  if (!$("zoo").hidden && all.rows.length) refresh();
}

function offerAxes() {
  const datasets = new Map();
  const axes = new Map();
  for (const { model } of all.rows) {
    for (const { dataset, metric } of accuracies(model)) {
      const key = `${dataset} ${metric}`;
      datasets.set(key, { dataset, metric, many: (datasets.get(key)?.many ?? 0) + 1 });
    }
    for (const cost of costs(model)) axes.set(cost.key, { ...cost, many: (axes.get(cost.key)?.many ?? 0) + 1 });
  }
  const options = [...datasets].sort((a, b) => b[1].many - a[1].many);
  $("chart-y").replaceChildren(...options.map(([value, { dataset, metric }]) => el("option", { value }, `${dataset}, ${metric}`)));
  const groups = ["Measured", "Claimed", "Counted"].map((group) => {
    const own = [...axes.values()].filter((axis) => axis.group === group).sort((a, b) => b.many - a.many);
    return own.length ? el("optgroup", { label: group }, ...own.map(({ key, label }) => el("option", { value: key }, label))) : null;
  });
  $("chart-x").replaceChildren(...groups.filter(Boolean));
  const measured = [...axes.values()].filter((axis) => axis.group === "Measured").sort((a, b) => b.many - a.many)[0];
  $("chart-x").value = measured ? measured.key : "gflops";
  const note = measured ? "" : "This server was given no measured speeds: the chart stands against the counted work. ";
  $("chart-note").textContent = `${note}The dashed line joins the models than which none of their kind is both cheaper and better.`;
}

function matching() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = Object.keys(MENUS).map((key) => [key, $(`by-${key}`).value]).filter(([, value]) => value);
  return all.rows.filter((row) => words.every((word) => row.words.includes(word)) && wanted.every(([key, value]) => row.model[key] === value));
}

const kindOf = (score) => `${score.dataset} ${score.metric}`;

/** What accuracies are of, dataset and metric, the most frequent first. */
function kindsOf(rows) {
  const many = new Map();
  for (const { claimed, measured } of rows) {
    for (const score of [claimed, measured]) if (score) many.set(kindOf(score), (many.get(kindOf(score)) ?? 0) + 1);
  }
  return [...many.keys()].sort((a, b) => many.get(b) - many.get(a));
}

/** By the chosen column. An accuracy is only compared with those on the same dataset by the same metric. */
function sorted(rows) {
  const { key, falling } = all.sort;
  const compare = (a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b)));
  const isScore = key === "claimed" || key === "measured";
  return [...rows].sort((a, b) => {
    const [x, y] = [a.values[key] ?? null, b.values[key] ?? null];
    if (x === null || y === null) return (x === null) - (y === null); // what is not known comes last either way
    if (isScore && kindOf(a[key]) !== kindOf(b[key])) return all.kinds.indexOf(kindOf(a[key])) - all.kinds.indexOf(kindOf(b[key]));
    return (falling ? compare(y, x) : compare(x, y)) || a.model.name.localeCompare(b.model.name);
  });
}

function refresh() {
  const rows = sorted(matching());
  drawHead();
  $("zoo-table").tBodies[0].replaceChildren(...rows.map(tableRow));
  $("zoo-count").textContent = rows.length === all.rows.length ? count(rows.length, "model", "models") : `${rows.length} of ${count(all.rows.length, "model", "models")}`;
  refreshChart();
}

function drawHead() {
  const { key, falling } = all.sort;
  const cells = COLUMNS.map((column) => {
    const isSorted = column.key === key;
    const button = el("button", { type: "button", "data-key": column.key, onclick: () => sortBy(column) }, column.name);
    return el("th", { scope: "col", class: column.number ? "n" : "", "aria-sort": isSorted ? (falling ? "descending" : "ascending") : null }, button);
  });
  const focused = document.activeElement?.dataset?.key;
  $("zoo-table").tHead.replaceChildren(el("tr", {}, ...cells));
  if (focused) $("zoo-table").tHead.querySelector(`[data-key="${focused}"]`)?.focus();
}

function sortBy(column) {
  const falling = all.sort.key === column.key ? !all.sort.falling : Boolean(column.largeFirst);
  all.sort = { key: column.key, falling };
  refresh();
}

function tableRow({ model, joints, size, claimed, measured }) {
  const open = el("button", { type: "button", class: "name", onclick: () => openEntry(model.name) }, ...breakable(model.name));
  const loaded = model.loaded ? el("span", { class: "tag" }, "loaded") : null;
  const number = (label, text) => el("td", { class: "n", "data-label": label }, text);
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, open, loaded),
    el("td", { "data-label": "Zoo" }, model.source ?? ""),
    el("td", { "data-label": "Trained on" }, model.dataset ?? ""),
    number("Joints", String(joints ?? "–")),
    number("Input", size),
    number("Params, M", fixed(model.params_m)),
    number("GFLOPs", fixed(model.gflops)),
    el("td", { class: "n", "data-label": "Claimed" }, ...scoreCell(claimed, model)),
    el("td", { class: "n", "data-label": "Measured" }, ...scoreCell(measured, model)),
  );
}

/** A long name that may be broken after a dot or an underscore. */
const breakable = (name) => name.split(/(?<=[._])/).flatMap((part) => [part, el("wbr")]);

/** A score with its metric; with its dataset where that is not the model's own. */
function scoreCell(score, model) {
  if (!score) return [el("span", { class: "muted" }, "–")];
  const where = score.dataset === model.dataset ? score.metric : `${score.metric} ${score.dataset}`;
  return [el("span", { class: `figure ${score.kind}` }, fixed(score.value)), el("span", { class: "muted small" }, ` ${where}`)];
}

function refreshChart() {
  drawLegend(all.families, all.picked, (family) => {
    if (!all.picked.delete(family)) all.picked.add(family);
    refreshChart();
  });
  if ($("zoo").hidden || !$("chart-box").open || !$("chart-y").value) return;
  const [dataset, metric] = $("chart-y").value.split(" ");
  const key = $("chart-x").value;
  let axis = null;
  const points = [];
  for (const { model } of matching()) {
    if (all.picked.size && !all.picked.has(model.family)) continue;
    const cost = costs(model).find((one) => one.key === key);
    if (!cost) continue;
    axis = cost;
    const scores = accuracies(model).filter((s) => s.dataset === dataset && s.metric === metric && belongs(s, cost));
    for (const score of scores) points.push(toPoint(model, score, cost));
  }
  const label = axis?.label ?? $("chart-x").selectedOptions[0]?.textContent ?? "";
  drawChart($("chart"), points, { x: label, y: `${metric} on ${dataset}`, higher: axis?.higher ?? false }, all.families, openEntry);
}

function toPoint(model, score, cost) {
  const flip = { true: ", with flip", false: ", no flip" }[score.flip] ?? "";
  const lines = [`${score.metric} ${fixed(score.value)} ${score.kind}${flip}`, `${Number(cost.value.toPrecision(4))}: ${cost.label}`, score.protocol];
  return { name: model.name, family: model.family, kind: score.kind, x: cost.value, y: score.value, lines: lines.filter(Boolean) };
}

/** All that is known of one model. Back closes it: it is a step of the history of its own. */
async function openEntry(name) {
  $("entry-name").textContent = name;
  $("entry-body").replaceChildren(el("p", { class: "muted" }, "…"));
  if (!$("entry").open) {
    history.pushState(ENTRY, "");
    $("entry").showModal();
  }
  const isWanted = () => $("entry").open && $("entry-name").textContent === name;
  try {
    const model = await get(`v1/models/${encodeURIComponent(name)}`);
    if (isWanted()) $("entry-body").replaceChildren(...entryParts({ ...model, name }));
  } catch (err) {
    if (!isWanted()) return;
    $("entry").close();
    tell(err, () => openEntry(name));
  }
}

function entryParts(model) {
  const known = { ...all.rows.find((row) => row.model.name === model.name)?.model, ...model };
  const facts = [
    ["Zoo", known.source],
    ["Family", known.family],
    ["Trained on", known.dataset],
    ["Keypoints", known.skeleton],
    ["Input", known.input_size_wh ? `${known.input_size_wh.join(" × ")} (width × height)` : null],
    ["Parameters", Number.isFinite(known.params_m) ? `${fixed(known.params_m)} M` : null],
    ["Work", Number.isFinite(known.gflops) ? `${fixed(known.gflops)} GFLOPs` : null],
    ["Decoding", known.codec],
    ...Object.entries(typeof known.licence === "object" ? (known.licence ?? {}) : { "": known.licence }).map(([part, text]) => [`Licence ${part}`.trim(), text]),
    ["Also called", (known.aliases ?? []).join(", ")],
    ["Notes", known.notes],
  ].filter(([, text]) => text);
  const list = el("dl", {}, ...facts.flatMap(([term, text]) => [el("dt", {}, term), el("dd", {}, String(text))]));
  const scores = ["claimed", "measured"].flatMap((kind) => scoreParts(known, kind));
  const command = known.task === "detection" ? `posezoo show ${known.name}` : `posezoo predict photo.jpg -m ${known.name}`;
  return [list, ...scores, el("h3", {}, "On the command line"), el("pre", {}, el("code", {}, command))];
}

function scoreParts(model, kind) {
  const title = { claimed: `Claimed by ${model.source}`, measured: "Measured here" }[kind];
  const items = scoresOf(model, kind).map((score) => {
    const flip = { true: ", with flip", false: ", no flip" }[score.flip] ?? "";
    return el("li", {}, el("span", { class: `figures ${kind}` }, numbers(score)), el("span", { class: "muted small" }, `on ${score.dataset}${flip}: ${score.protocol}`));
  });
  return [el("h3", {}, title), items.length ? el("ul", { class: "scores" }, ...items) : el("p", { class: "muted" }, "nothing")];
}

export function startZoo() {
  $("zoo-filter").addEventListener("submit", (event) => event.preventDefault());
  $("zoo-filter").addEventListener("input", everyFrame(refresh));
  for (const id of ["chart-x", "chart-y"]) $(id).addEventListener("input", refreshChart);
  $("chart-box").addEventListener("toggle", refreshChart);
  $("entry").addEventListener("click", (event) => event.target === $("entry") && $("entry").close());
  $("entry").addEventListener("close", () => history.state === ENTRY && history.back());
  window.addEventListener("popstate", () => $("entry").close()); // of another view, too
  new ResizeObserver(everyFrame(refreshChart)).observe($("chart-box"));
}
