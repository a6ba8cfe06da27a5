// The server, and its errors in plain words.

const TOKEN = "posezoo-token";

const STATUSES = {
  400: "The server did not take the request",
  401: "This server asks for a token",
  403: "The server does not allow this",
  404: "The server does not know this",
  408: "The picture came too slowly",
  413: "The picture is too large for this server",
  415: "This is no kind of picture that the server reads",
  422: "The server did not take the request",
  429: "The server is busy",
  500: "The server failed",
  503: "The server is not ready",
  504: "It took too long, and the server gave up",
};
export const CODES = {
  bad_image: "The server could not read this as a picture",
  bad_option: "The server did not take an option",
  too_many_pixels: "The picture has too many pixels for this server",
  too_many_people: "There are too many people in the picture for this server",
  unknown_model: "The server has no such model",
  shutting_down: "The server is shutting down",
  wrong_host: "The server does not go by this address",
};
const PASSES = [0, 408, 429, 500, 502, 503, 504]; // worth another try with the same picture

/** What went wrong, for a reader. `status` 0: no answer came. */
export class ServerError extends Error {
  constructor(status, title, detail, retryAfter) {
    super(title);
    Object.assign(this, { status, detail, retryAfter, again: PASSES.includes(status) });
  }
}

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

/** A GET of JSON. */
export async function get(path, signal) {
  const answer = await ask(path, { signal });
  return json(answer);
}

/** The people in a picture: the body is the picture itself. */
export async function predict(picture, options, signal) {
  const query = new URLSearchParams(options);
  const type = picture.type.startsWith("image/") ? picture.type : "application/octet-stream";
  const request = { method: "POST", body: picture, headers: { "Content-Type": type }, signal };
  return json(await ask(`v1/predict?${query}`, request));
}

async function ask(path, request) {
  const headers = new Headers(request.headers);
  headers.set("Accept", "application/json");
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  let answer;
  try {
    answer = await fetch(new URL(path, document.baseURI), { ...request, headers, credentials: "same-origin" });
  } catch (err) {
    if (err.name === "AbortError") throw err;
    const size = request.body ? ` The picture has ${(request.body.size / 1e6).toFixed(1)} MB: it may be too much for it.` : "";
    throw new ServerError(0, "The server does not answer", `It may have been stopped, or it hung up.${size}`);
  }
  if (!answer.ok) throw await refusal(answer, Boolean(token));
  return answer;
}

async function json(answer) {
  try {
    return await answer.json();
  } catch (err) {
    if (err.name === "AbortError") throw err;
    throw new ServerError(0, "The server's answer broke off", "It was no complete JSON.");
  }
}

/** The error that an answer stands for: {"error": {"code", "message"}}, or whatever a proxy on the way says. */
async function refusal(answer, hadToken) {
  const body = await answer.json().catch(() => null);
  const { code = "", message = "" } = body?.error ?? {};
  const status = answer.status;
  const other = status > 500 ? STATUSES[500] : STATUSES[400];
  const title = status === 401 && hadToken ? "The server does not take this token" : (CODES[code] ?? STATUSES[status] ?? other);
  const seconds = Number.parseInt(answer.headers.get("Retry-After"), 10);
  const wait = seconds > 0 ? ` Try again in ${seconds} s.` : "";
  const detail = (message || `Its answer was ${status} ${answer.statusText}`.trim()) + wait;
  return new ServerError(status, title, detail, seconds > 0 ? seconds : null);
}
