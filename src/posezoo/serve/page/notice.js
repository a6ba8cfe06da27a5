// The one place where errors are told, with what can be done about them.

import { $ } from "./dom.js";
import { ServerError, setToken } from "./api.js";

let retry = null;

/** Tell an error; `again` is run by "Try again", or once a token was given. */
export function tell(error, again = null) {
  const known = error instanceof ServerError;
  const isToken = known && error.status === 401;
  retry = again;
  $("notice-title").textContent = error.message;
  $("notice-detail").textContent = error.detail ?? "";
  $("notice-detail").hidden = !error.detail;
  $("token-form").hidden = !isToken;
  $("retry").hidden = !(again && known && error.again);
  $("notice").hidden = false;
  if (isToken) $("token").focus();
  else $("notice").scrollIntoView({ block: "nearest" });
}

/** A problem of the page's own, in a title and a line. */
export function tellPlainly(title, detail = "") {
  tell(Object.assign(new Error(title), { detail }));
}

export function hush() {
  $("notice").hidden = true;
  retry = null;
}

export function startNotice() {
  const again = () => {
    const work = retry;
    hush();
    work?.();
  };
  $("dismiss").addEventListener("click", hush);
  $("retry").addEventListener("click", again);
  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setToken($("token").value.trim());
    $("token").value = "";
    document.dispatchEvent(new Event("token"));
    again();
  });
}
