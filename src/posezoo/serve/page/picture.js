// The first view: a picture in, its people out.

import { $, count, el, fixed, save } from "./dom.js";
import { CODES, get, predict, ServerError } from "./api.js";
import { hush, tell, tellPlainly } from "./notice.js";
import { showPeople, updatePeople } from "./people.js";
import { errorOf, readResult, stem, toFile } from "./result.js";
import { readSkeleton } from "./skeleton.js";
import { peopleShown, point, readLook, redraw, showResult, showSize, startStage, toPng } from "./stage.js";
import { isRunning, startCamera, stopCamera } from "./camera.js";

const skeletons = new Map();
const now = { picture: null, name: "", result: null, skeleton: null, asked: null, models: [] };

/** The options of a request: every person, since the sliders leave out those below them. */
function options() {
  const given = { flip: $("flip").checked, min_score: 0, output: "json" };
  if ($("model").value) given.model = $("model").value;
  return given;
}

async function getSkeleton(name) {
  if (!skeletons.has(name)) skeletons.set(name, readSkeleton(await get(`v1/skeletons/${encodeURIComponent(name)}`)));
  return skeletons.get(name);
}

/** Ask the server about a picture; the answer and its skeleton, ready to draw. */
async function estimate(picture, name, signal) {
  const answer = await predict(picture, options(), signal);
  const refused = errorOf(answer);
  if (refused) throw new ServerError(400, CODES.bad_image, refused);
  const result = readResult(answer, name);
  return { result, skeleton: await getSkeleton(result.skeleton) };
}

/** Show a picture and find its people. A picture that is still being worked on is given up. */
export async function take(picture, name) {
  if (picture.type && !picture.type.startsWith("image/")) {
    tellPlainly(`${name} is not a picture`, "Give a JPEG, PNG, WebP or another kind of picture.");
    return;
  }
  stop();
  const signal = giveUp();
  Object.assign(now, { picture, name, result: null });
  showResult(null, null);
  startWork();
  if (await showPhoto(picture, signal)) await find(signal);
}

/** Give up what is being worked on; the signal of what takes its place. */
function giveUp() {
  now.asked?.abort();
  now.asked = new AbortController();
  return now.asked.signal;
}

function startWork() {
  hush();
  $("desk").setAttribute("aria-busy", "true");
  $("status").textContent = "Looking for people…";
  $("results").hidden = true;
}

const endWork = () => $("desk").setAttribute("aria-busy", "false");

async function find(signal = giveUp()) {
  const { picture, name } = now;
  startWork();
  try {
    const found = await estimate(picture, name, signal);
    if (!signal.aborted) show(found);
  } catch (err) {
    if (signal.aborted) return;
    now.result = null;
    $("status").textContent = "No result";
    showResult(null, null);
    tell(err, find);
  } finally {
    if (!signal.aborted) endWork();
  }
}

/**
 * The picture under the canvas; one that the browser cannot show leaves an empty ground.
 *
 * False where a newer one was given meanwhile, with which the browser gives up to decode this one.
 */
async function showPhoto(picture, signal) {
  openDesk();
  const photo = $("photo");
  if (photo.src) URL.revokeObjectURL(photo.src);
  photo.hidden = false;
  photo.alt = now.name;
  photo.src = URL.createObjectURL(picture);
  const isDecoded = await photo.decode().then(() => true, () => false);
  if (signal.aborted) return false;
  photo.hidden = !isDecoded;
  if (isDecoded) showSize(photo.naturalWidth, photo.naturalHeight);
  else showSize(640, 480);
  return true;
}

function openDesk() {
  const hadFocus = $("drop").contains(document.activeElement);
  $("drop").hidden = true;
  $("desk").hidden = false;
  $("again").hidden = false;
  if (hadFocus) $("choose-again").focus({ preventScroll: true }); // on a phone it is below the picture
}

function show({ result, skeleton }, live = false) {
  Object.assign(now, { result, skeleton });
  if ($("photo").hidden && !live) showSize(result.width, result.height);
  showResult(result, skeleton);
  if (live) return;
  showPeople(result, point);
  delete $("people").dataset.touched;
  $("results").hidden = false;
  update();
}

/** What follows from the controls, for the result there is. */
function update() {
  $("people-score-out").textContent = fixed(readLook().peopleScore, 2);
  $("joint-score-out").textContent = fixed(readLook().jointScore, 2);
  if (!now.result) return;
  if (isRunning()) {
    redraw();
    return;
  }
  showResult(now.result, now.skeleton);
  updatePeople(now.result, readLook());
  const shown = peopleShown(now.result).length;
  const more = now.result.people.length - shown;
  const time = now.result.milliseconds === null ? "" : `, ${fixed(now.result.milliseconds, 0)} ms`;
  const blind = $("photo").hidden ? " This browser cannot show the picture itself." : "";
  const rest = more ? `, ${more} more below the score` : "";
  $("status").textContent = `${shown ? count(shown, "person", "people") : "Nobody"} found${rest}${time}.${blind}`;
  $("save-json").disabled = $("save-png").disabled = false;
}

// The camera: what was last sent and what was found in it stay when it stops.

function startLive() {
  hush();
  const video = $("video");
  startCamera(video, {
    opened: () => {
      giveUp(); // not before: without a camera the picture is still wanted
      endWork();
      openDesk();
      Object.assign(now, { result: null, name: "camera.jpg" });
      [$("photo").hidden, video.hidden, $("results").hidden] = [true, false, true];
      live(true);
      $("status").textContent = "The camera is on";
    },
    size: showSize,
    estimate: (frame, signal) => estimate(frame, "camera.jpg", signal),
    found: (frame, found, note) => {
      now.picture = frame;
      show(found, true);
      $("rate").textContent = note;
    },
    stopped: freeze,
    failed: (err) => (err instanceof ServerError ? tell(err, startLive) : tellPlainly(err.message, err.detail)),
  });
}

function live(on) {
  $("stop").hidden = !on;
  $("choose-again").hidden = $("camera-again").hidden = on;
  if (!on) $("rate").textContent = "";
  if (on) $("stop").focus();
}

/** The camera has stopped: its last frame with a result stays as the picture. */
async function freeze() {
  const { picture, result, skeleton } = now;
  const hadFocus = document.activeElement === $("stop");
  live(false);
  $("video").hidden = true;
  if (!result) {
    $("desk").hidden = $("again").hidden = true;
    $("drop").hidden = false;
  }
  if (hadFocus) $(result ? "choose-again" : "choose").focus();
  if (result && (await showPhoto(picture, giveUp()))) show({ result, skeleton });
}

function stop() {
  stopCamera(false);
  live(false);
  $("video").hidden = true;
}

// Controls

export function startPicture() {
  startStage();
  for (const id of ["people-score", "joint-score", "boxes", "limbs", "names"]) $(id).addEventListener("input", update);
  $("people").addEventListener("click", () => ($("people").dataset.touched = "yes"));
  const again = () => now.picture && !isRunning() && find();
  $("flip").addEventListener("change", again);
  $("model").addEventListener("change", () => {
    tellModel();
    again();
  });
  $("choose").addEventListener("click", () => $("file").click());
  $("choose-again").addEventListener("click", () => $("file").click());
  $("camera").addEventListener("click", startLive);
  $("camera-again").addEventListener("click", startLive);
  $("stop").addEventListener("click", () => stopCamera(true));
  $("file").addEventListener("change", () => {
    takeFirst($("file").files);
    $("file").value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => {
    if (!event.clipboardData.files.length) return;
    event.preventDefault();
    takeFirst(event.clipboardData.files);
  });
  startDrop();
  $("save-json").addEventListener("click", () => {
    const text = toFile(now.result, peopleShown(now.result));
    save(new Blob([text], { type: "application/json" }), `${stem(now.name)}.json`);
  });
  $("save-png").addEventListener("click", savePng);
  update();
}

async function savePng() {
  $("save-png").disabled = true;
  try {
    save(await toPng($("photo"), now.result, now.skeleton), `${stem(now.name)}_poses.png`);
  } catch (err) {
    tellPlainly("The picture could not be drawn", err.message);
  } finally {
    $("save-png").disabled = false;
  }
}

function takeFirst(files) {
  if (!files.length) return;
  if ($("picture").hidden) location.hash = "#picture"; // only then: it takes the focus away
  const several = files.length > 1 ? `${files.length} pictures were given: this is the first.` : "";
  const file = files[0];
  take(file, file.name || "pasted.png").then(() => {
    if (several && now.picture === file && $("notice").hidden) $("status").textContent += ` ${several}`;
  });
}

/** A drop anywhere on the page counts: no picture is ever opened instead of the page. */
function startDrop() {
  const cover = (on) => ($("cover").hidden = !on);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    if ([...event.dataTransfer.types].includes("Files")) cover(true);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && cover(false));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    cover(false);
    if (event.dataTransfer.files.length) takeFirst(event.dataTransfer.files);
    else tellPlainly("That was no file", "Save the picture first, or copy it and paste it here.");
  });
}

/** The models that can be chosen: those that the server has loaded. */
export function offerModels(models) {
  const usable = models.filter((model) => model.task !== "detection");
  const loaded = usable.filter((model) => model.loaded);
  now.models = usable;
  const select = $("model");
  const before = select.value;
  select.replaceChildren(...loaded.map((model) => el("option", { value: model.name }, model.name)));
  if (!loaded.length) select.replaceChildren(el("option", { value: "" }, "the server's own"));
  if (loaded.some((model) => model.name === before)) select.value = before;
  select.disabled = loaded.length < 2;
  tellModel();
}

function tellModel() {
  const model = now.models.find((other) => other.name === $("model").value);
  const size = model?.input_size_wh ? `, ${model.input_size_wh.join(" × ")} input` : "";
  $("model-about").textContent = model ? `${model.joints} joints (${model.skeleton})${size}` : "";
}
