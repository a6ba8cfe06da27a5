// Where the page starts: which view is seen, and the list of models that both need.

import { $ } from "./dom.js";
import { get } from "./api.js";
import { stopCamera } from "./camera.js";
import { startNotice, tell } from "./notice.js";
import { offerModels, startPicture } from "./picture.js";
import { showModels, showZoo, startZoo } from "./zoo.js";

const VIEWS = ["picture", "zoo"];

function showView() {
  const view = VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : VIEWS[0];
  for (const name of VIEWS) {
    $(name).hidden = name !== view;
    if (name === view) $(`to-${name}`).setAttribute("aria-current", "page");
    else $(`to-${name}`).removeAttribute("aria-current");
  }
  if (view !== "picture") stopCamera(true); // nobody is filmed by what is out of sight
  if (view === "zoo") showZoo();
  document.title = view === "zoo" ? "posezoo: the zoo" : "posezoo";
}

/** The skip link; its address would be that of no view. */
function skip(event) {
  event.preventDefault();
  $("main").focus();
}

let loaded = false;

async function loadModels() {
  try {
    const { models } = await get("v1/models");
    loaded = true;
    offerModels(models);
    showModels(models);
  } catch (err) {
    offerModels([]);
    // a token is followed by another try of its own
    tell(err, err.status === 401 ? null : loadModels);
  }
}

startNotice();
startPicture();
startZoo();
window.addEventListener("hashchange", showView);
document.querySelector(".skip").addEventListener("click", skip);
document.addEventListener("token", () => !loaded && loadModels());
showView();
loadModels();
