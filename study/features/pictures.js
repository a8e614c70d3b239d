// Examples of a page of features of images: the part of an image that a position sees, and the
// whole image with the latent's map over it.
const picturesOf = ({ all, escaped, number, chips }) => {
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  const SIDE = 112; // pixels of a drawn map
  const n = all.size, [rows, columns] = all.grid, { size, origin, stride } = all.field;
  const side = Math.min(Math.max(...size), n), whole = side >= n;
  const view = side < n / 6 ? 3 * side : side; // a small part is shown with what surrounds it
  const corner = (y, x) => // of the part, in pixels
    whole ? [0, 0] : [origin[0] + stride[0] * x + 0.5 - side / 2, origin[1] + stride[1] * y + 0.5 - side / 2];
  const file = (image) => `data/images/${image}${all.suffix}`;
  const hasMap = rows * columns > 1 && (stride[0] > 0 || stride[1] > 0);
  const rough = n <= 64 ? " rough" : "";

  function part(image, y, x, eager) {
    if (image < 0) return '<span class="part"></span>';
    const around = (view - side) / 2, [left, top] = corner(y, x).map((v) => v - around);
    const at = (v) => `${((-v / view) * 100).toFixed(2)}%`, inner = view > side && !eager ? '<i class="third"></i>' : "";
    return `<span class="part${rough}"><img src="${file(image)}" alt="" draggable="false"${eager ? "" : ' loading="lazy"'} style="width:${((n / view) * 100).toFixed(2)}%;left:${at(left)};top:${at(top)}">${inner}</span>`;
  }
  function faces(latent, most = 9) {
    let html = "";
    for (let i = 0; all.faces && i < Math.min(all.faces.each, most); i++) {
      const [image, y, x] = all.faces.data.subarray((latent * all.faces.each + i) * 3, (latent * all.faces.each + i) * 3 + 3);
      if (image < 0) continue;
      html += n <= 64 ? `<span class="part rough"><img src="${file(image)}" alt="" draggable="false" style="width:100%;left:0;top:0"></span>` : part(image, y, x, true);
    }
    return html;
  }
  function example([image, name, kind, y, x, value, level, map, peak], highest) {
    if (image < 0) return `<figure class="pic none"><figcaption><b>${number(value)}</b> ${escaped(name)}</figcaption></figure>`;
    const [left, top] = corner(y, x), per = (v) => `${((v / n) * 100).toFixed(2)}%`;
    const frame = whole ? "" : `<i style="left:${per(left)};top:${per(top)};width:${per(side)};height:${per(side)}"></i>`;
    const canvas = map && hasMap ? `<canvas width="${SIDE}" height="${SIDE}" data-map="${map}" data-scale="${peak / (highest || 1)}"></canvas>` : "";
    const quantile = level === null ? "" : `<small>${Math.round(level * 100)} %</small>`;
    return `<figure class="pic" title="${escaped(name)}, row ${y}, column ${x} of the map"><div class="twice">${part(image, y, x)}` +
      `<span class="whole${rough}"><img src="${file(image)}" alt="${escaped(name)}" loading="lazy" draggable="false">${canvas}${frame}</span></div>` +
      `<figcaption><b>${number(value)}</b>${quantile} <span class="soft">${kind ? escaped(all.tokens[kind]) : all.tokens.length > 1 ? "" : escaped(name)}</span></figcaption></figure>`;
  }
  function levels(text) { // activations of the cells in parts of the map's largest; NaN if unknown
    const found = new Float32Array(rows * columns);
    let at = 0;
    for (const [, count, symbol] of text.matchAll(/(\d*)(\D)/g)) {
      const end = at + (count ? +count : 1);
      found.fill(symbol === "_" ? NaN : (LETTERS.indexOf(symbol) + 1) / LETTERS.length, at, end); // 0 for "."
      at = end;
    }
    return found;
  }
  function paint(root) {
    for (const canvas of root.querySelectorAll("canvas[data-map]")) {
      const map = levels(canvas.dataset.map), scale = +canvas.dataset.scale, known = !map.some(Number.isNaN);
      const pen = canvas.getContext("2d"), drawn = pen.createImageData(SIDE, SIDE);
      const place = (pixel, axis, cells) => // the cell, with its fraction, that is drawn at a pixel
        Math.min(Math.max((((pixel + 0.5) / SIDE) * n - 0.5 - origin[axis]) / stride[axis], 0), cells - 1);
      for (let py = 0; py < SIDE; py++) for (let px = 0; px < SIDE; px++) {
        const y = place(py, 1, rows), x = place(px, 0, columns);
        let value;
        if (known) {
          const y0 = Math.floor(y), x0 = Math.floor(x), y1 = Math.min(y0 + 1, rows - 1), x1 = Math.min(x0 + 1, columns - 1), fy = y - y0, fx = x - x0;
          value = (map[y0 * columns + x0] * (1 - fx) + map[y0 * columns + x1] * fx) * (1 - fy) + (map[y1 * columns + x0] * (1 - fx) + map[y1 * columns + x1] * fx) * fy;
        } else value = map[Math.round(y) * columns + Math.round(x)];
        const dark = Number.isNaN(value) ? 0.82 : 0.55 * (1 - Math.min(value * scale, 1) ** 0.6);
        const grey = Number.isNaN(value) ? 110 : 0;
        drawn.data.set([grey, grey, grey, 255 * dark], 4 * (py * SIDE + px));
      }
      pen.putImageData(drawn, 0, 0);
    }
  }
  function spread(entry, latent) {
    if (!entry.classes) return "";
    const most = Math.max(...entry.classes.map(([, part_]) => part_), 1e-9);
    const line = ([kind, part_]) => `<li><span>${chips([kind])}</span><i style="--w:${(part_ / most) * 100}%"></i><span>${+(part_ * 100).toPrecision(2)} %</span></li>`;
    return `<div><h3>Classes <span class="soft">${number(all.effective[latent], 2)} of ${all.tokens.length - 1}, effectively</span></h3><ol class="weights">${entry.classes.map(line).join("")}</ol></div>`;
  }
  const examples = (list, highest) => `<div class="pics">${list.map((e) => example(e, highest)).join("")}</div>`;
  return { faces, examples, paint, spread };
};
