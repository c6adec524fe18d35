// What a card shows of its files: a picture, and of an animation a button that plays or pauses it.

import { make, paragraph } from "./page.js";

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

export class Preview {
  // `files` are those with a link; `words` describe the picture. An animation plays unless less motion is preferred.
  constructor(frame, files, name, words) {
    Object.assign(this, { frame, name, alt: `${name}: ${words}` });
    this.moving = files.filter((file) => file.frames > 1).sort(byWeight);
    const stills = files.filter((file) => !this.moving.includes(file));
    this.still = stills.find((file) => file.format === "WEBP") ?? stills[0];
    this.isPlaying = !reducedMotion.matches;
  }

  get file() {
    return this.moving[0] ?? this.still;
  }

  show() {
    if (this.moving.length && this.isPlaying) this.load(this.moving);
    else if (this.still) this.load([this.still]);
    else this.frame.replaceChildren(paragraph(`An animation of ${this.file.frames} frames.`));
  }

  // Show the first of the files that this browser can decode.
  load([file, ...others]) {
    const image = make("img", { loading: "lazy", src: file.url, alt: this.alt });
    image.addEventListener("error", () => {
      if (others.length) this.load(others);
      else this.frame.replaceChildren(paragraph("The picture is made, but its link cannot be loaded here."));
    });
    const link = { href: file.url, target: "_blank", rel: "noopener", title: "Open in full size" };
    this.frame.replaceChildren(make("a", link, image));
  }

  buttons() {
    if (!this.moving.length) return [];
    const button = make("button", { type: "button", className: "quiet" });
    const label = () => {
      button.textContent = this.isPlaying ? "Pause" : "Play";
      button.ariaLabel = `${button.textContent}: ${this.name}`;
    };
    button.addEventListener("click", () => {
      this.isPlaying = !this.isPlaying;
      this.show();
      label();
    });
    label();
    return [button];
  }
}

// The picture, or only its first frame where less motion is preferred.
export async function asItMayMove(file) {
  if (!reducedMotion.matches) return file;
  try {
    const first = await createImageBitmap(file);
    const canvas = make("canvas", { width: first.width, height: first.height });
    canvas.getContext("2d").drawImage(first, 0, 0);
    return await new Promise((resolve, reject) => canvas.toBlob((blob) => (blob ? resolve(blob) : reject())));
  } catch {
    // The browser cannot decode it, or has no memory for the canvas.
    return file;
  }
}

// APNG last: it is lossless, and nearly always the largest.
const byWeight = (a, b) => (a.format === "PNG") - (b.format === "PNG") || a.size - b.size;
