// The picture and the canvas over it: size, drawing, hover and keys.

import { $, everyFrame, fixed, spoken } from "./dom.js";
import { drawPeople, isShown, jointAt, place } from "./skeleton.js";
import { markJoint } from "./people.js";

const MOST_PIXELS = 16e6; // of the canvas; a phone's browser gives up beyond
const LARGEST_ZOOM = 8;
const RING = 12; // round the joint that is pointed out

const shown = { result: null, skeleton: null, size: null, zoom: 1, focus: null };

/** What is to be drawn, as the page's controls say. */
export function readLook() {
  return {
    peopleScore: Number($("people-score").value),
    jointScore: Number($("joint-score").value),
    boxes: $("boxes").checked,
    limbs: $("limbs").checked,
    names: $("names").checked,
  };
}

/** The people whose score is high enough. */
export const peopleShown = (result) => result.people.filter((person) => person.score >= readLook().peopleScore);

/** Lay out a picture of this size, with nothing on it yet. */
export function showSize(width, height) {
  if (shown.size?.width !== width || shown.size?.height !== height) shown.zoom = 1;
  shown.size = { width, height };
  shown.result = null;
  point(null);
  layOut();
}

/** Draw a result over the picture; null clears. */
export function showResult(result, skeleton) {
  Object.assign(shown, { result, skeleton });
  const many = result ? peopleShown(result).length : 0;
  $("overlay").setAttribute("aria-label", `Picture with ${many} ${many === 1 ? "person" : "people"}`);
  if (shown.focus && !isThere(shown.focus)) point(null);
  redraw();
}

export const redraw = everyFrame(draw);

const accent = () => getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();

function draw() {
  const canvas = $("overlay");
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!shown.result || !shown.size) return;
  const unit = canvas.width / canvas.clientWidth || 1;
  const scale = canvas.width / shown.result.width;
  const look = { ...readLook(), scale, unit, focus: shown.focus, accent: accent() };
  drawPeople(context, peopleShown(shown.result), shown.skeleton, look);
}

/** The whole picture with its skeletons, in its own size: a PNG. */
export async function toPng(photo, result, skeleton) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [result.width, result.height];
  const context = canvas.getContext("2d");
  if (!context) throw new Error("This browser cannot draw a picture of this size");
  context.fillStyle = "#ffffff"; // as the server sees what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  if (photo.naturalWidth) context.drawImage(photo, 0, 0, canvas.width, canvas.height);
  const unit = Math.max(1, Math.max(result.width, result.height) / 1000);
  drawPeople(context, peopleShown(result), skeleton, { ...readLook(), scale: 1, unit, focus: null });
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  if (!blob) throw new Error("This browser cannot make a picture of this size");
  return blob;
}

function layOut() {
  if (!shown.size) return;
  const { width, height } = shown.size;
  const stage = $("stage");
  const fit = Math.min(stage.clientWidth / width, Math.max(280, 0.74 * window.innerHeight) / height, 4);
  const wide = Math.max(1, Math.round(width * fit * shown.zoom));
  const high = Math.max(1, Math.round(height * fit * shown.zoom));
  $("frame").style.width = `${wide}px`;
  $("frame").style.height = `${high}px`;
  const dense = Math.min(window.devicePixelRatio || 1, Math.sqrt(MOST_PIXELS / (wide * high)));
  $("overlay").width = Math.max(1, Math.round(wide * dense));
  $("overlay").height = Math.max(1, Math.round(high * dense));
  draw();
}

function zoomTo(zoom) {
  const stage = $("stage");
  const x = (stage.scrollLeft + stage.clientWidth / 2) / stage.scrollWidth;
  const y = (stage.scrollTop + stage.clientHeight / 2) / stage.scrollHeight;
  shown.zoom = Math.min(Math.max(zoom, 1), LARGEST_ZOOM);
  layOut();
  stage.scrollLeft = x * stage.scrollWidth - stage.clientWidth / 2;
  stage.scrollTop = y * stage.scrollHeight - stage.clientHeight / 2;
  if (shown.focus) seek(shown.focus);
}

const isThere = ({ person, joint }) => {
  const found = shown.result && peopleShown(shown.result).find((other) => other.index === person);
  return Boolean(found && joint < found.points.length && isShown(found.points[joint], readLook().jointScore));
};

/** Point out a joint, {person, joint}; null lets go. */
export function point(focus) {
  shown.focus = focus && isThere(focus) ? focus : null;
  markJoint(shown.focus);
  const tip = $("tip");
  tip.hidden = !shown.focus;
  if (shown.focus) {
    const joint = shown.result.people[focus.person].points[focus.joint];
    const lines = [`${spoken(shown.skeleton.joints[focus.joint])} ${fixed(joint[2], 2)}`];
    lines.push(`person ${focus.person + 1} · ${fixed(joint[0])}, ${fixed(joint[1])}`);
    tip.replaceChildren(...lines.map((line) => Object.assign(document.createElement("span"), { textContent: line })));
    putTip(tip, place(joint, $("frame").clientWidth / shown.result.width));
  }
  redraw();
}

/** Beside the joint, on the side where there is room in what is seen of the picture. */
function putTip(tip, [x, y]) {
  const stage = $("stage");
  const right = x - stage.scrollLeft + 18 + tip.offsetWidth < stage.clientWidth;
  const below = y - stage.scrollTop - tip.offsetHeight - 12 < 0;
  tip.style.left = `${right ? x + 14 : Math.max(0, x - 14 - tip.offsetWidth)}px`;
  tip.style.top = `${below ? y + 12 : y - tip.offsetHeight - 12}px`;
}

function hover(event) {
  if (!shown.result) return;
  const canvas = $("overlay").getBoundingClientRect();
  const scale = canvas.width / shown.result.width;
  const at = [(event.clientX - canvas.left) / scale - 0.5, (event.clientY - canvas.top) / scale - 0.5];
  const reach = (event.pointerType === "touch" ? 28 : 14) / scale;
  const found = jointAt(peopleShown(shown.result), at, reach, readLook().jointScore);
  if (found?.person !== shown.focus?.person || found?.joint !== shown.focus?.joint) point(found);
}

/** Arrows: from joint to joint, from person to person. */
function step(byJoint, byPerson) {
  const { jointScore } = readLook();
  const people = peopleShown(shown.result).filter((person) => person.points.some((p) => isShown(p, jointScore)));
  if (!people.length) return;
  const now = people.findIndex((person) => person.index === shown.focus?.person);
  const person = people[now < 0 ? 0 : (now + byPerson + people.length) % people.length];
  const joints = person.points.flatMap((p, joint) => (isShown(p, jointScore) ? [joint] : []));
  const at = joints.indexOf(shown.focus?.joint);
  const joint = now < 0 || byPerson || at < 0 ? joints[0] : joints[(at + byJoint + joints.length) % joints.length];
  seek({ person: person.index, joint });
  $("spoken").textContent = [...$("tip").children].map((line) => line.textContent).join(", ");
}

/** Point out a joint, and bring it into what is seen of the picture. */
function seek(focus) {
  const stage = $("stage");
  const joint = shown.result.people[focus.person].points[focus.joint];
  const [x, y] = place(joint, $("frame").clientWidth / shown.result.width);
  const isSeen = (at, from, size) => at >= from + RING && at <= from + size - RING;
  if (!isSeen(x, stage.scrollLeft, stage.clientWidth)) stage.scrollLeft = x - stage.clientWidth / 2;
  if (!isSeen(y, stage.scrollTop, stage.clientHeight)) stage.scrollTop = y - stage.clientHeight / 2;
  point(focus); // last: its tip is put where there is room now
}

const KEYS = {
  ArrowRight: () => step(1, 0),
  ArrowLeft: () => step(-1, 0),
  ArrowDown: () => step(0, 1),
  ArrowUp: () => step(0, -1),
  Escape: () => point(null),
  "+": () => zoomTo(shown.zoom * 1.5),
  "-": () => zoomTo(shown.zoom / 1.5),
};

export function startStage() {
  const canvas = $("overlay");
  canvas.addEventListener("pointermove", hover);
  canvas.addEventListener("pointerdown", hover);
  canvas.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && point(null));
  canvas.addEventListener("blur", () => point(null));
  canvas.addEventListener("keydown", (event) => {
    if (!shown.result || !KEYS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  $("larger").addEventListener("click", () => zoomTo(shown.zoom * 1.5));
  $("smaller").addEventListener("click", () => zoomTo(shown.zoom / 1.5));
  $("fit").addEventListener("click", () => zoomTo(1));
  new ResizeObserver(everyFrame(layOut)).observe($("stage"));
  window.addEventListener("resize", everyFrame(layOut));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}
