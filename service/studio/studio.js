// The page: starts runs from the form, remembers the API key, and shows earlier requests after a reload.

import { listNewest, problemOf } from "./api.js";
import { checkExportFields, prepareForm, readOrder, readPicture } from "./order.js";
import { announce, at, config } from "./page.js";
import { PictureRun } from "./picture.js";
import { Run } from "./run.js";

const KEY_SLOT = "image-export-key";
const MAX_EARLIER = 10;

const runs = [];
let earlier = [];
let loads = 0;

function generate(event) {
  event.preventDefault();
  if (!at("generate").disabled) start(Run.ofOrder(readOrder(), Number(at("count").value)));
}

function exportPicture() {
  if (checkExportFields()) start(PictureRun.ofOrder(readPicture(), 1));
}

function start(run) {
  runs.push(run);
  run.start();
}

async function showEarlier() {
  const load = ++loads;
  at("earlier").hidden = true;
  for (const run of earlier.splice(0)) run.remove();
  if (config.needs_key && !at("key").value.trim()) return;
  try {
    const statuses = await listNewest(MAX_EARLIER);
    if (load === loads) addEarlier(statuses.filter((status) => !runs.some((run) => run.shows(status))));
  } catch (error) {
    if (load === loads) showEarlierFailure(error);
  }
}

function addEarlier(statuses) {
  earlier = statuses.map((status) => Run.ofStatus(status));
  at("results").append(...earlier.map((run) => run.root));
  for (const run of earlier) {
    run.show();
    run.follow();
  }
}

function showEarlierFailure(error) {
  const { title, detail } = problemOf(error);
  at("earlier-text").textContent = `Earlier requests cannot be shown. ${title}: ${detail}`;
  at("earlier").hidden = false;
  announce(at("earlier-text").textContent);
}

function rememberedKey() {
  try {
    return sessionStorage.getItem(KEY_SLOT) ?? "";
  } catch {
    return "";
  }
}

function rememberKey() {
  try {
    sessionStorage.setItem(KEY_SLOT, at("key").value);
  } catch {
    // Storage may be disabled; the field still holds the key.
  }
}

at("emulator").hidden = !config.emulator;
at("key-field").hidden = !config.needs_key;
at("key").required = config.needs_key;
at("key").value = rememberedKey();
at("key").addEventListener("input", rememberKey);
at("key").addEventListener("change", showEarlier);
at("earlier-again").addEventListener("click", showEarlier);
at("order").addEventListener("submit", generate);
at("export").addEventListener("click", exportPicture);
// Once the service has the request, leaving the page loses nothing.
addEventListener("beforeunload", (event) => runs.some((run) => run.isUploading) && event.preventDefault());
prepareForm();
showEarlier();
