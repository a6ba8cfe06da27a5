// Accuracy against cost as inline SVG, drawn again for every width.

import { $, el, fixed, svg } from "./dom.js";

const HIGH = 400;
const MARGIN = { left: 46, right: 18, top: 14, bottom: 44 };

/**
 * Draw points into `host`.
 *
 * points: [{name, family, kind, x, y, lines}]; axes: {x: label, y: label, higher}; families: in the order of their
 * colours. `pick(name)` is called on a click or Enter.
 */
export function drawChart(host, points, axes, families, pick) {
  const width = Math.max(280, host.clientWidth);
  const box = { ...MARGIN, width, right: width - MARGIN.right, bottom: HIGH - MARGIN.bottom };
  const label = `${points.length} points: ${axes.y} against ${axes.x}. Arrow keys step through them, Enter opens one.`;
  const root = svg("svg", { viewBox: `0 0 ${width} ${HIGH}`, width, height: HIGH, tabindex: 0, role: "application", "aria-label": label });
  const tip = el("div", { class: "tip", hidden: true });
  const spoken = el("p", { class: "unseen", "aria-live": "polite" });
  host.replaceChildren(root, tip, spoken);
  if (!points.length) {
    root.append(svg("text", { x: width / 2, y: HIGH / 2, "text-anchor": "middle", class: "axis-name" }, "No model here has both"));
    return;
  }
  const toX = logScale(points.map((p) => p.x), box.left + 10, box.right - 10);
  const toY = linearScale(points.map((p) => p.y), box.bottom - 10, box.top + 10);
  drawAxes(root, box, toX, toY, axes);
  drawFrontiers(root, points, toX, toY, axes.higher);
  const marks = points.map((point) => drawMark(root, point, toX.at(point.x), toY.at(point.y), families.indexOf(point.family)));
  listen(root, host, tip, spoken, points, marks, (p) => [toX.at(p.x), toY.at(p.y)], pick);
}

function logScale(values, from, to) {
  const low = Math.log(Math.min(...values));
  const span = Math.log(Math.max(...values)) - low || 1;
  const at = (value) => from + ((Math.log(value) - low) / span) * (to - from);
  const ticks = [];
  for (let power = -3; power < 7; power++) for (const step of [1, 2, 5]) ticks.push(step * 10 ** power);
  const inside = ticks.filter((tick) => at(tick) >= from - 8 && at(tick) <= to + 8);
  return { at, ticks: inside };
}

function linearScale(values, from, to) {
  const low = Math.min(...values);
  const span = Math.max(...values) - low || 1;
  const at = (value) => from + ((value - low) / span) * (to - from);
  const step = [0.5, 1, 2, 5, 10, 20].find((size) => span / size <= 8) ?? 50;
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= low + span + 1e-9; tick += step) ticks.push(tick);
  return { at, ticks };
}

function drawAxes(root, box, toX, toY, axes) {
  const grid = svg("g", { class: "grid" });
  for (const tick of toX.ticks) {
    const x = toX.at(tick);
    grid.append(svg("line", { x1: x, x2: x, y1: box.top, y2: box.bottom }));
    grid.append(svg("text", { x, y: box.bottom + 16, "text-anchor": "middle" }, String(Number(tick.toPrecision(2)))));
  }
  for (const tick of toY.ticks) {
    const y = toY.at(tick);
    grid.append(svg("line", { x1: box.left, x2: box.right, y1: y, y2: y }));
    grid.append(svg("text", { x: box.left - 8, y: y + 4, "text-anchor": "end" }, String(Number(tick.toFixed(1)))));
  }
  const middle = (box.left + box.right) / 2;
  const most = Math.floor((box.right - box.left) / 6.4);
  const name = axes.x.length > most ? `${axes.x.slice(0, most - 1)}…` : axes.x;
  grid.append(svg("text", { x: middle, y: box.bottom + 36, "text-anchor": "middle", class: "axis-name" }, name));
  const y = (box.top + box.bottom) / 2;
  grid.append(svg("text", { x: 12, y, "text-anchor": "middle", transform: `rotate(-90 12 ${y})`, class: "axis-name" }, axes.y));
  root.append(grid);
}

/** The models than which none of their kind is both cheaper and better, joined by a dashed line. */
function drawFrontiers(root, points, toX, toY, higher) {
  for (const kind of ["claimed", "measured"]) {
    const own = points.filter((p) => p.kind === kind).sort((a, b) => (higher ? b.x - a.x : a.x - b.x) || b.y - a.y);
    const front = [];
    for (const point of own) if (!front.length || point.y > front.at(-1).y) front.push(point);
    if (front.length < 2) continue;
    const line = front.map((p) => `${fixed(toX.at(p.x))},${fixed(toY.at(p.y))}`).join(" ");
    root.append(svg("polyline", { class: "front", points: line }));
  }
}

function drawMark(root, point, x, y, family) {
  const at = { class: `mark ${point.kind} f${family}`, "data-name": point.name };
  const mark =
    point.kind === "claimed"
      ? svg("circle", { ...at, cx: x, cy: y, r: 5 })
      : svg("path", { ...at, d: `M${x} ${y - 7}l7 7l-7 7l-7 -7z` });
  root.append(mark);
  return mark;
}

function listen(root, host, tip, spoken, points, marks, at, pick) {
  let now = -1;
  const order = points.map((_, k) => k).sort((a, b) => points[a].x - points[b].x || points[a].y - points[b].y);
  const show = (k) => {
    marks[now]?.classList.remove("at");
    now = k;
    tip.hidden = k < 0;
    root.classList.toggle("over", k >= 0);
    if (k < 0) return;
    marks[k].classList.add("at");
    const lines = [points[k].name, ...points[k].lines];
    tip.replaceChildren(...lines.map((line) => el("span", {}, line)));
    const [x, y] = at(points[k]);
    tip.style.left = `${Math.max(0, Math.min(x + 12, host.clientWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${y - tip.offsetHeight - 12 > 0 ? y - tip.offsetHeight - 12 : y + 14}px`;
  };
  const nearest = (event) => {
    const frame = root.getBoundingClientRect();
    const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
    const away = points.map((point) => Math.hypot(at(point)[0] - x, at(point)[1] - y));
    const k = away.indexOf(Math.min(...away));
    return away[k] < (event.pointerType === "touch" ? 32 : 18) ? k : -1;
  };
  root.addEventListener("pointermove", (event) => show(nearest(event)));
  root.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && show(-1));
  root.addEventListener("pointerdown", (event) => show(nearest(event)));
  root.addEventListener("click", (event) => event.detail && now >= 0 && nearest(event) === now && pick(points[now].name));
  root.addEventListener("blur", () => show(-1));
  root.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (move) {
      const place = order.indexOf(now);
      show(order[place < 0 ? 0 : (place + move + order.length) % order.length]);
      spoken.textContent = [points[now].name, ...points[now].lines].join(", ");
    } else if (event.key === "Enter" && now >= 0) pick(points[now].name);
    else if (event.key === "Escape") show(-1);
    else return;
    event.preventDefault();
  });
}

/** Families as buttons that pick some out. */
export function drawLegend(families, picked, change) {
  const buttons = families.map((family, k) =>
    el(
      "button",
      { type: "button", class: `pill f${k}`, "aria-pressed": picked.has(family) ? "true" : "false", onclick: () => change(family) },
      el("span", { class: "dot", "aria-hidden": "true" }),
      family,
    ),
  );
  const last = document.activeElement?.textContent;
  const hadFocus = $("legend").contains(document.activeElement);
  $("legend").replaceChildren(...buttons);
  if (hadFocus) buttons.find((button) => button.textContent === last)?.focus();
}
