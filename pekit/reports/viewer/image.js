"use strict";
// The image: decodes slices and attributions, applies window and colours, draws outlines.
// It is joined with viewer.js to one script, which runs in a document of its own.
const study = JSON.parse(document.getElementById("study").textContent);
const $ = (id) => document.getElementById(id);
const hops = Object.keys(study.probs);
const explained = hops.filter((hop) => Object.keys(study.maps[hop] || {}).length);
const outlines = Object.keys(study.outlines);
const shown = {
  z: study.start,
  window: study.windows.findIndex((w) => w.name === "PE"),
  outlines: new Set(outlines),
  hop: null, // the hop whose attribution is shown
};
const named = (hop) => hop.replace(/^hop/, "hop ");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);

// Images: decoded when first needed, kept with one byte per pixel.
const decoded = new Map();
async function bytes(key, address) {
  if (!decoded.has(key)) {
    const image = new Image();
    image.src = address;
    decoded.set(key, image.decode().then(() => {
      const canvas = new OffscreenCanvas(study.columns, study.rows);
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      const { data } = context.getImageData(0, 0, study.columns, study.rows);
      return Uint8Array.from({ length: data.length / 4 }, (_, i) => data[4 * i]);
    }));
  }
  return decoded.get(key);
}
const slice = (z) => {
  const address = study.images[z - study.z0];
  return address ? bytes(`slice ${z}`, address) : null;
};
const map = (z) => {
  const address = (study.maps[shown.hop] || {})[z];
  return address ? bytes(`map ${shown.hop} ${z}`, address) : null;
};

// Table from grey level to pixel in a window.
function greys({ centre, width }) {
  const table = new Uint32Array(256);
  for (let level = 0; level < 256; level++) {
    const k = study.levels.findIndex(([, top]) => level <= top) || 1;
    const [[hu0, l0], [hu1, l1]] = study.levels.slice(k - 1, k + 1);
    const hu = hu0 + ((hu1 - hu0) * (level - l0)) / (l1 - l0);
    const grey = Math.round(255 * Math.min(Math.max((hu - centre) / width + 0.5, 0), 1));
    table[level] = rgba(grey, grey, grey, 255);
  }
  return table;
}
// matplotlib's inferno at equal steps, as in the figures; weak attribution is transparent.
const INFERNO = ["000004", "1b0c41", "4a0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9b06",
  "f7d13d", "fcffa4"].map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
const heat = Uint32Array.from({ length: 256 }, (_, level) => {
  const share = level / 255;
  const at = share * (INFERNO.length - 1);
  const k = Math.min(Math.floor(at), INFERNO.length - 2);
  const mixed = INFERNO[k].map((low, i) => Math.round(low + (INFERNO[k + 1][i] - low) * (at - k)));
  return rgba(...mixed, Math.round(255 * 0.85 * share ** 0.6));
});
function rgba(r, g, b, a) {
  return ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;
}
function coloured(levels, table) {
  const canvas = new OffscreenCanvas(study.columns, study.rows);
  const pixels = new Uint32Array(levels.length);
  levels.forEach((level, i) => { pixels[i] = table[level]; });
  const image = new ImageData(new Uint8ClampedArray(pixels.buffer), study.columns, study.rows);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

let latest = 0;
async function draw() {
  const turn = ++latest;
  let grey, attribution;
  try {
    [grey, attribution] = await Promise.all([slice(shown.z), map(shown.z)]);
  } catch (error) {
    $("state").textContent = `slice ${shown.z}: its image is damaged`;
    throw error;
  }
  if (turn !== latest) return; // the user has moved on
  const canvas = $("image");
  const scale = window.devicePixelRatio || 1;
  // Without a size yet, as printed before it is scrolled to: that of the slice, and CSS fits it in.
  canvas.width = Math.round(canvas.clientWidth * scale) || 4 * study.columns;
  canvas.height = Math.round(canvas.clientHeight * scale) || 4 * study.rows;
  const context = canvas.getContext("2d");
  $("outside").hidden = Boolean(grey);
  if (grey) paint(context, canvas, scale, grey, attribution);
  // Tests wait for this: the slice whose pixels are drawn.
  canvas.dataset.z = shown.z;
  canvas.dataset.overlay = attribution ? shown.hop : "";
  canvas.setAttribute("aria-label", `Axial slice ${shown.z}, ${study.windows[shown.window].name} window`);
  for (const near of [1, -1, 2, -2, 3, -3]) slice(shown.z + near);
}
function paint(context, canvas, scale, grey, attribution) {
  const [, dy, dx] = study.millimetres;
  const fit = Math.min(canvas.width / (study.columns * dx), canvas.height / (study.rows * dy));
  const [width, height] = [study.columns * dx * fit, study.rows * dy * fit];
  const [left, top] = [(canvas.width - width) / 2, (canvas.height - height) / 2];
  const outline = (name) => {
    const path = new Path2D();
    for (const points of study.outlines[name][shown.z - study.z0]) {
      for (let i = 0; i < points.length; i += 2) {
        path[i ? "lineTo" : "moveTo"](
          left + (points[i] + 0.5) * dx * fit, top + (points[i + 1] + 0.5) * dy * fit);
      }
      path.closePath();
    }
    return path;
  };
  context.imageSmoothingQuality = "high";
  context.save();
  // Outside the hull are only artefacts of the JPEG compression.
  if (study.outlines.hull) context.clip(outline("hull"));
  context.drawImage(coloured(grey, greys(study.windows[shown.window])), left, top, width, height);
  if (attribution) context.drawImage(coloured(attribution, heat), left, top, width, height);
  context.restore();
  for (const name of shown.outlines) {
    const path = outline(name);
    // A dark edge, so that the line is seen on every grey.
    for (const [style, width] of [["#000", 3.6], [colour(name) || "#fff", 1.8]]) {
      context.strokeStyle = style;
      context.lineWidth = width * scale;
      context.stroke(path);
    }
  }
  context.fillStyle = "#e8eaed"; // the ground is black, on paper too
  context.font = `${13 * scale}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  const [middle, centre, edge] = [left + width / 2, top + height / 2, 12 * scale];
  for (const [mark, x, y] of [["R", left + edge, centre], ["L", left + width - edge, centre],
    ["A", middle, top + edge], ["P", middle, top + height - edge]]) {
    context.fillText(mark, x, y);
  }
}
