// The form: its choices, its checks, the base picture, and the body of the request that it describes.

import { at, bytes, config, dollars, FORMATS, KILOBYTE, label, make } from "./page.js";
import { asItMayMove } from "./preview.js";

// Each has a setting, which is the default.
const ENCODING_FIELDS = ["jpeg_quality", "webp_quality", "avif_quality", "png_compression"];

function fill(select, values, preferred) {
  const wanted = values.includes(preferred) ? preferred : values[0];
  select.replaceChildren(...values.map((value) => new Option(value, value, false, value === wanted)));
}

function showChoices() {
  const model = config.models[at("model").value];
  fill(at("aspect_ratio"), model?.ratios ?? config.ratios, at("aspect_ratio").value || "16:9");
  fill(at("image_size"), model?.sizes ?? config.sizes, at("image_size").value || "1K");
}

function showEstimate() {
  const count = Number(at("count").value);
  const pictures = count === 1 ? "1 picture" : `${count} pictures`;
  at("estimate").textContent = count >= 1 ? `${pictures}: ${estimate(count)}` : "";
}

function estimate(count) {
  if (config.emulator) return "free, drawn by the emulator";
  const model = config.models[at("model").value];
  const price = model?.prices[at("image_size").value];
  return price ? `about ${dollars(count * price)} (prices of ${model.as_of})` : "price unknown";
}

function checkScript() {
  // Count code points, as the service does; length counts UTF-16 units.
  const length = [...at("script").value].length;
  const excess = length - config.max_script;
  at("script-count").textContent = `${length.toLocaleString()} of ${config.max_script.toLocaleString()}`;
  at("script-count").classList.toggle("over", excess > 0);
  at("script").setCustomValidity(scriptFault(excess));
}

function scriptFault(excess) {
  if (excess > 0) return `The script is too long by ${excess.toLocaleString()}.`;
  if (at("script").value.trim()) return "";
  return `Write what the thumbnail is about${base ? ", or export this picture only: that needs no script" : ""}.`;
}

const chosenFormats = () => [...at("formats").querySelectorAll(":checked")].map((box) => box.value);

function checkFormats() {
  const fault = chosenFormats().length ? "" : "Choose at least one format.";
  at("formats").querySelector("input").setCustomValidity(fault);
}

function showBlend() {
  const share = Number(at("blend").value);
  at("blend-text").textContent = `${share} % picture, ${100 - share} % base`;
}

// A focus counts only for a crop, and `disabled` also keeps its numbers from being checked.
function showFocus() {
  const isPoint = at("focus").value === "point";
  at("focus-field").hidden = at("fit").value !== "cover";
  at("focus-point").hidden = !isPoint;
  at("focus-x").disabled = at("focus-y").disabled = at("focus-field").hidden || !isPoint;
}

function readFocus() {
  if (at("focus-field").hidden) return "";
  const share = (id) => (at(id).valueAsNumber / 100).toFixed(4);
  return at("focus").value === "point" ? `${share("focus-x")},${share("focus-y")}` : at("focus").value;
}

function showBudget() {
  const isLimited = at("max_kilobytes").value !== "";
  at("allow_resize").disabled = !isLimited;
  at("animate").disabled = isLimited;
  at("animate-hint").hidden = !isLimited;
}

// The base picture

const WITH_BASE = ["preview", "image-remove", "base-options", "alone"];

let base = null;

async function takeBase(file) {
  dropBase();
  let data;
  try {
    // Read the file now: a browser cannot send a file that has changed on disk since it was chosen.
    data = file.size <= config.max_upload_bytes ? new Uint8Array(await file.arrayBuffer()) : null;
  } catch {
    return refuseBase(`${file.name} cannot be read.`);
  }
  if (!data) {
    return refuseBase(`${file.name} has ${bytes(file.size)}; at most ${bytes(config.max_upload_bytes)} are allowed.`);
  }
  const format = formatOf(data);
  if (!format) return refuseBase(`${file.name} is not a ${config.pictures.named} picture.`);
  const taken = (base = new File([data], file.name));
  // A JPEG is never an animation.
  const mayMove = format !== "jpeg";
  const shown = mayMove ? await asItMayMove(base) : base;
  if (base === taken) showBase(shown, mayMove);
}

// Determined by magic bytes, as in the service, not by the file name.
function formatOf(data) {
  const head = String.fromCharCode(...data.subarray(0, config.pictures.sniff_bytes));
  const isOf = (pattern) => new RegExp(`^(?:${pattern})`, "s").test(head);
  return Object.keys(config.pictures.magic).find((name) => isOf(config.pictures.magic[name]));
}

function showBase(shown, mayMove) {
  at("preview").src = URL.createObjectURL(shown);
  for (const id of WITH_BASE) at(id).hidden = false;
  at("animate-field").hidden = !mayMove;
  checkScript();
  at("drop-text").hidden = true;
  at("image-hint").textContent = `${base.name}, ${bytes(base.size)}`;
}

function dropBase() {
  URL.revokeObjectURL(at("preview").src);
  base = null;
  // Reset, so that choosing the same file again fires a change event.
  at("image").value = "";
  at("preview").removeAttribute("src");
  for (const id of WITH_BASE) at(id).hidden = true;
  checkScript();
  at("drop-text").hidden = false;
  at("image-hint").textContent = `${config.pictures.named}, at most ${bytes(config.max_upload_bytes)}`;
  at("image-refusal").textContent = "";
}

function refuseBase(reason) {
  at("image-refusal").textContent = reason;
}

function acceptDrops() {
  // On the whole page: otherwise the browser opens a file that is dropped beside the box.
  const isFile = (event) => event.dataTransfer?.types.includes("Files");
  const light = (on) => at("drop").classList.toggle("over-me", on);
  addEventListener("dragover", (event) => {
    if (isFile(event)) event.preventDefault(), light(true);
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? light(false));
  addEventListener("drop", (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    light(false);
    if (event.dataTransfer.files.length) takeBase(event.dataTransfer.files[0]);
  });
}

// The request

export function readOrder() {
  const body = new FormData();
  // A Blob is sent as it is; in a text field each LF would become CRLF.
  body.append("script", new Blob([at("script").value]), "script.txt");
  body.append("count", at("count").value);
  appendFilled(body, ["aspect_ratio", "model", "image_size"]);
  appendExportFields(body);
  if (base) {
    body.append("image", base);
    body.append("blend", Number(at("blend").value) / 100);
    body.append("reference", at("reference").checked);
  }
  return { body, script: at("script").value.trim(), ratio: at("aspect_ratio").value };
}

// The export of the uploaded picture alone.
export function readPicture() {
  const body = new FormData();
  appendExportFields(body);
  body.append("image", base);
  if (!at("animate-field").hidden && !at("animate").disabled) {
    body.append("animate", at("animate").checked ? "keep" : "first");
  }
  const { naturalWidth, naturalHeight } = at("preview");
  return { body, script: `Export of ${base.name}`, ratio: naturalWidth ? `${naturalWidth}:${naturalHeight}` : "16:9" };
}

// Whether these are valid, and the first that is not is shown. The script is not among them.
export function checkExportFields() {
  return [at("key"), ...at("options").querySelectorAll("input, select")].every((field) => field.reportValidity());
}

function appendFilled(body, names) {
  for (const name of names) if (at(name).value) body.append(name, at(name).value);
}

function appendExportFields(body) {
  appendFilled(body, ["width", "height", "fit", "matte", ...ENCODING_FIELDS]);
  for (const name of ["progressive", "webp_lossless"]) body.append(name, at(name).checked);
  if (readFocus()) body.append("focus", readFocus());
  if (at("max_kilobytes").value) {
    body.append("max_bytes", at("max_kilobytes").valueAsNumber * KILOBYTE);
    body.append("allow_resize", at("allow_resize").checked);
  }
  body.append("formats", chosenFormats().join(","));
}

// The same request for one variation.
export function bodyOfOne(order) {
  const body = new FormData();
  for (const [name, value] of order.body) body.append(name, name === "count" ? "1" : value);
  return body;
}

// Event listeners

export function prepareForm() {
  at("count").max = config.max_variations;
  at("count").value = Math.min(2, config.max_variations);
  at("width").max = at("height").max = config.max_side;
  at("matte").value = config.matte;
  at("max_kilobytes").max = Math.floor(config.max_bytes / KILOBYTE);
  for (const name of ENCODING_FIELDS) at(name).placeholder = config[name];
  at("image").accept = config.pictures.types.join(",");
  at("formats").replaceChildren(...FORMATS.map(formatChoice));
  fill(at("model"), [...new Set([config.default_model, ...Object.keys(config.models)])], config.default_model);
  showChoices();
  showEstimate();
  showBlend();
  showFocus();
  showBudget();
  dropBase();
  checkScript();
  listen();
}

function formatChoice(value) {
  const checked = config.default_formats.includes(value);
  const box = make("input", { type: "checkbox", value, checked, defaultChecked: checked });
  return make("label", { className: "check" }, box, ` ${label(value)}`);
}

function listen() {
  const form = at("order");
  at("script").addEventListener("input", checkScript);
  at("model").addEventListener("change", showChoices);
  at("blend").addEventListener("input", showBlend);
  for (const id of ["fit", "focus"]) at(id).addEventListener("change", showFocus);
  at("max_kilobytes").addEventListener("input", showBudget);
  at("formats").addEventListener("change", checkFormats);
  at("image").addEventListener("change", () => at("image").files.length && takeBase(at("image").files[0]));
  at("preview").addEventListener("error", () => at("preview").hasAttribute("src") && refuseSpoiltBase());
  at("image-remove").addEventListener("click", () => {
    dropBase();
    at("image").focus();
  });
  form.addEventListener("input", showEstimate);
  // Open the section of an invalid field: a hidden field cannot be focused.
  form.addEventListener("invalid", (event) => event.target.closest("details")?.setAttribute("open", ""), true);
  at("script").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  acceptDrops();
}

function refuseSpoiltBase() {
  const { name } = base;
  dropBase();
  refuseBase(`${name} cannot be decoded: it is damaged or cut.`);
}
