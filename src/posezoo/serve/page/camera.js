// The camera: one frame at a time goes to the server, the next one only when its answer is here.

import { fixed } from "./dom.js";
import { ServerError } from "./api.js";

const LONGEST_SIDE = 960; // of the frames that are sent
const QUALITY = 0.88;
const PATIENCE_S = 20; // how long a busy server is waited for

let run = null; // of the camera that is on, or asked for: {stream, video, abort, to, isOpen}

export const isRunning = () => Boolean(run?.isOpen);

const REASONS = {
  NotAllowedError: ["The camera was not allowed", "Allow it beside the address of this page, then try again."],
  NotFoundError: ["There is no camera", "Connect one, then try again."],
  NotReadableError: ["The camera cannot be opened", "Another program may be using it."],
};

/**
 * Open the camera and send its frames until it is stopped.
 *
 * to: opened(), size(width, height), estimate(frame, signal), found(frame, answer, note), stopped(), failed(error).
 */
export async function startCamera(video, to) {
  if (run) return;
  if (!navigator.mediaDevices?.getUserMedia) {
    to.failed(problem("The browser gives no camera to this page", "It does so only over https, or on this machine (http://localhost)."));
    return;
  }
  const mine = (run = { stream: null, video, abort: new AbortController(), to, isOpen: false });
  try {
    mine.stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, facingMode: "user" } });
    if (run !== mine) return void release(mine); // stopped before it was allowed
    video.srcObject = mine.stream;
    await video.play();
  } catch (err) {
    release(mine);
    if (run !== mine) return;
    run = null;
    to.failed(problem(...(REASONS[err.name] ?? ["The camera cannot be opened", err.message])));
    return;
  }
  if (run !== mine) return;
  mine.stream.getVideoTracks()[0].addEventListener("ended", () => {
    if (run !== mine) return;
    stopCamera(true);
    to.failed(problem("The camera has gone", "It was unplugged, or taken away from this page."));
  });
  mine.isOpen = true;
  to.opened();
  try {
    await sendFrames(mine);
  } catch (err) {
    if (run !== mine) return;
    stopCamera(true);
    to.failed(err);
  }
}

/** Stop; `keep` the last frame on the page. */
export function stopCamera(keep) {
  const last = run;
  if (!last) return;
  run = null;
  last.abort.abort();
  release(last);
  if (keep && last.isOpen) last.to.stopped();
}

function release({ stream, video }) {
  stream?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
}

const problem = (title, detail) => Object.assign(new Error(title), { detail });
const wait = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function sendFrames(mine) {
  const canvas = document.createElement("canvas");
  let waited = 0;
  let before = performance.now();
  let rate = null;
  while (run === mine) {
    if (document.hidden) {
      await wait(0.3);
      continue;
    }
    const frame = await grab(mine, canvas);
    if (run !== mine) return;
    let answer;
    try {
      answer = await mine.to.estimate(frame, mine.abort.signal);
    } catch (err) {
      const busy = err instanceof ServerError && (err.status === 429 || err.status === 503);
      if (run !== mine || !busy || waited >= PATIENCE_S) throw err;
      const pause = Math.min(err.retryAfter ?? 0.5, 5);
      waited += pause;
      await wait(pause);
      continue;
    }
    if (run !== mine) return;
    waited = 0;
    const time = performance.now();
    const latest = 1000 / Math.max(time - before, 1);
    rate = rate === null ? latest : 0.8 * rate + 0.2 * latest;
    before = time;
    mine.to.found(frame, answer, `${fixed(rate, rate < 10 ? 1 : 0)} frames a second`);
  }
}

/** The present frame as a JPEG, never larger than the server needs. */
async function grab({ video, to }, canvas) {
  const shrink = Math.min(1, LONGEST_SIDE / Math.max(video.videoWidth, video.videoHeight, 1));
  const width = Math.max(1, Math.round(video.videoWidth * shrink));
  const height = Math.max(1, Math.round(video.videoHeight * shrink));
  if (canvas.width !== width || canvas.height !== height) {
    [canvas.width, canvas.height] = [width, height];
    to.size(width, height);
  }
  canvas.getContext("2d").drawImage(video, 0, 0, width, height);
  const frame = await new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
  if (!frame) throw problem("The camera gives no picture", "");
  return frame;
}
