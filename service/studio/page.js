// Shared by all modules: the configuration, DOM helpers, and the formatting of sizes, times and money.

export const config = JSON.parse(document.getElementById("config").textContent);
export const FORMATS = Object.keys(config.formats);

export const at = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export const paragraph = (textContent) => make("p", { textContent });

export const copyOf = (id) => at(id).content.firstElementChild.cloneNode(true);

// For screen readers: a live region that is not visible.
export function announce(text) {
  at("news").textContent = text;
}

export const KILOBYTE = 1024;

export function bytes(size) {
  if (size < KILOBYTE) return `${size} B`;
  if (size < KILOBYTE ** 2) return `${Math.round(size / KILOBYTE)} KB`;
  return `${Number((size / KILOBYTE ** 2).toFixed(1))} MB`;
}

export function duration(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

export const dollars = (amount) => `$${amount.toFixed(amount < 0.1 ? 4 : 2)}`;

export const pixels = (width, height) => `${width} × ${height}`;

// What there is to say of a file's frames: of a still nothing.
export const frames = (file) => (file.frames > 1 ? [`${file.frames} frames`] : []);

export function cost(amount) {
  if (amount === 0) return "free";
  return amount === null ? "cost unknown" : dollars(amount);
}

export function variations(count) {
  return count === 1 ? "1 variation" : `${count} variations`;
}

export const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export function label(format) {
  return config.formats[format.toLowerCase()] ?? format;
}
