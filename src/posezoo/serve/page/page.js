// Where the page starts: which view is seen, and the list of models that both need.

import { $ } from "./dom.js";
import { get } from "./api.js";
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
  if (view === "zoo") showZoo();
  document.title = view === "zoo" ? "posezoo: the zoo" : "posezoo";
}

let loaded = false;

async function loadModels() {
  try {
    const { models } = await get("v1/models");
    loaded = true;
    offerModels(models);
    showModels(models);
  } catch (err) {
    // a token is followed by another try of its own
    tell(err, err.status === 401 ? null : loadModels);
  }
}

startNotice();
startPicture();
startZoo();
window.addEventListener("hashchange", showView);
document.addEventListener("token", () => !loaded && loadModels());
showView();
loadModels();
