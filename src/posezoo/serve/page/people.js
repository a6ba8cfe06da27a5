// The keypoints as tables, one a person. A table is only made once it is opened: a hundred people have many joints.

import { $, count, el, fixed, spoken } from "./dom.js";
import { isShown } from "./skeleton.js";

/** Show the tables of a result, the first person's open; `point({person, joint} or null)` is called on hover. */
export function showPeople(result, point) {
  const parts = result.people.map((person) => {
    const title = el("summary", {}, el("span", {}, `Person ${person.index + 1}`), el("span", { class: "about" }));
    const part = el("details", { class: "person", "data-person": person.index }, title);
    part.addEventListener("toggle", () => part.open && open(part, person, result, point));
    return part;
  });
  $("people").replaceChildren(...parts);
  $("people-title").hidden = !parts.length;
}

/** After a threshold has moved: hide people below it, say how much of each is shown. */
export function updatePeople(result, { peopleScore, jointScore }) {
  for (const part of $("people").children) {
    const person = result.people[Number(part.dataset.person)];
    const shown = person.points.filter((point) => isShown(point, jointScore)).length;
    part.hidden = person.score < peopleScore;
    part.querySelector(".about").textContent = `score ${fixed(person.score, 2)}, ${shown} of ${count(person.points.length, "joint", "joints")}`;
    dim(part, person, jointScore);
  }
  const first = [...$("people").children].find((part) => !part.hidden);
  const anyOpen = [...$("people").children].some((part) => !part.hidden && part.open);
  if (first && !anyOpen && !$("people").dataset.touched) first.open = true;
}

function open(part, person, result, point) {
  if (part.querySelector("table")) return;
  const head = el("tr", {}, ...["Joint", "x", "y", "Score"].map((name, k) => el("th", { scope: "col", class: k ? "n" : "" }, name)));
  const rows = person.points.map(([x, y, score], joint) =>
    el(
      "tr",
      { "data-joint": joint, onpointerenter: () => point({ person: person.index, joint }), onpointerleave: () => point(null) },
      el("th", { scope: "row" }, spoken(result.joints[joint])),
      el("td", { class: "n" }, fixed(x ?? NaN)),
      el("td", { class: "n" }, fixed(y ?? NaN)),
      el("td", { class: "n" }, meter(score), fixed(score, 2)),
    ),
  );
  part.append(el("table", { class: "joints" }, el("thead", {}, head), el("tbody", {}, ...rows)));
  dim(part, person, Number($("joint-score").value));
}

/** A score as a bar, beside its figure. */
function meter(score) {
  const part = el("span", {});
  part.style.width = `${Math.round(100 * Math.min(Math.max(score, 0), 1))}%`;
  return el("span", { class: "meter", "aria-hidden": "true" }, part);
}

function dim(part, person, jointScore) {
  for (const row of part.querySelectorAll("tbody tr")) {
    row.classList.toggle("below", !isShown(person.points[Number(row.dataset.joint)], jointScore));
  }
}

/** Mark the row of a joint, where its table is open. */
export function markJoint(focus) {
  for (const row of $("people").querySelectorAll("tr.marked")) row.classList.remove("marked");
  if (!focus) return;
  $("people").querySelector(`[data-person="${focus.person}"] [data-joint="${focus.joint}"]`)?.classList.add("marked");
}
