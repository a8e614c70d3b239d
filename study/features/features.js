// The page of features. The numbers of all latents come with data/index.js; the rest of a latent
// comes in a piece of data/ when it is shown. The list draws only the rows that are visible.
const features = (() => {
  const byId = (id) => document.getElementById(id);
  const ROW = 34, SPARE = 8, PIECES = 24; // pixels a row, rows drawn beyond the edge, pieces kept
  let all = null; // the index
  let order = []; // latents that are listed, in order
  let by = "number", rising = true, shown = -1, requested = -1, lowered = [];
  let pictures = null, unit = "token"; // how examples are drawn where they are images
  const pieces = new Map(), waiting = new Map();

  // ---- data
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  const tokensOf = (table, latent) => {
    if (!table) return [];
    const found = table.data.subarray(latent * table.each, (latent + 1) * table.each);
    return [...found].filter((token) => token > 0);
  };
  function unpack(table) {
    if (!table) return null;
    const kind = table.bytes === 2 ? Uint16Array : Uint32Array;
    return { each: table.each, data: new kind(bytes(table.data)) };
  }
  function index(given) {
    all = { ...given, fires: unpack(given.fires), promotes: unpack(given.promotes) };
    for (const name of ["frequency", "max", "nearest", "moran", "effective"])
      if (given[name]) all[name] = new Float32Array(bytes(given[name]));
    if (given.faces) all.faces = { each: given.faces.each, data: new Int32Array(bytes(given.faces.data)) };
    if (given.kind === "images") pictures = picturesOf({ all, escaped, number, chips });
    unit = pictures ? "position" : "token";
    lowered = all.tokens.map((text) => text.toLowerCase());
    list();
    show(linked() >= 0 ? linked() : order[0] ?? 0, true);
    document.body.dataset.drawn = Math.round(performance.now()); // milliseconds to the first row
    mapSoon();
  }
  function piece(number, latents) {
    pieces.set(number, latents);
    if (pieces.size > PIECES) pieces.delete(pieces.keys().next().value);
    waiting.get(number)?.forEach((then) => then());
    waiting.delete(number);
  }
  function missing(file) {
    byId("detail").innerHTML = `<p><b>${file}</b> is missing. Keep the folder data/ beside this page.</p>`;
  }
  function withLatent(latent, then) {
    const number = Math.floor(latent / all.piece);
    const give = () => then(pieces.get(number)[latent % all.piece]);
    if (pieces.has(number)) return give();
    if (waiting.has(number)) return waiting.get(number).push(give);
    waiting.set(number, [give]);
    const script = document.createElement("script");
    script.src = `data/${String(number).padStart(3, "0")}.js`;
    script.onload = () => script.remove();
    script.onerror = () => { waiting.delete(number); missing(script.getAttribute("src")); };
    document.body.append(script);
  }

  // ---- text
  const escaped = (text) => text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
  const number = (value, digits = 3) =>
    value === 0 ? "0" : Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3 ? value.toExponential(1) : String(+value.toPrecision(digits));
  const fixed = (value) => value.toFixed(2).replace("-0.00", "0.00");
  const percent = (part) => (part === 0 ? "never" : part < 1e-5 ? "<0.001 %" : `${+(part * 100).toPrecision(part < 0.001 ? 1 : 2)} %`);
  const visible = (text) => escaped(text).replace(/\r\n|\r|\n/g, "↵").replace(/\t/g, "⇥");
  const chip = (token, hit) => {
    const text = visible(all.tokens[token]).replace(/^ +/, (s) => `<span class="mark">${"·".repeat(s.length)}</span>`);
    return `<span class="tok${hit && hit(token) ? " hit" : ""}">${text}</span>`;
  };
  const chips = (tokens, hit) => tokens.map((token) => chip(token, hit)).join("");

  // ---- the list
  function finder() {
    const typed = byId("search").value.trim().toLowerCase(), where = byId("where").value;
    if (!typed) return { keeps: () => true, hit: null };
    const whole = typed.match(/^["“](.*)["”]$/), wanted = whole ? whole[1].trim() : typed;
    const hits = lowered.map((text) => (whole ? text.trim() === wanted : text.includes(wanted)));
    hits[0] = false;
    const number = /^#?\d+$/.test(typed) ? Number(typed.replace("#", "")) : -1;
    const among = (table, latent) => { // without an array for each of very many latents
      if (!table) return false;
      for (let at = latent * table.each, end = at + table.each; at < end; at++) if (hits[table.data[at]]) return true;
      return false;
    };
    return {
      hit: where === "number" ? null : (token) => hits[token],
      keeps: (latent) =>
        ((where === "all" || where === "number") && latent === number) ||
        ((where === "all" || where === "fires") && among(all.fires, latent)) ||
        ((where === "all" || where === "promotes") && among(all.promotes, latent)),
    };
  }
  let found = { hit: null };
  function list() {
    found = finder();
    const alive = byId("alive").checked;
    order = [];
    for (let latent = 0; latent < all.latents; latent++)
      if ((!alive || all.frequency[latent] > 0) && found.keeps(latent)) order.push(latent);
    const value = by === "number" ? (latent) => latent : (latent) => (Number.isNaN(all[by][latent]) ? -1e9 : all[by][latent]);
    order.sort((a, b) => (value(a) - value(b)) * (rising ? 1 : -1) || a - b);
    byId("count").textContent = `${order.length.toLocaleString("en")} of ${all.latents.toLocaleString("en")} latents`;
    for (const head of byId("head").querySelectorAll("button")) {
      head.classList.toggle("by", head.dataset.by === by);
      head.classList.toggle("rising", rising);
    }
    byId("rows").style.height = `${order.length * ROW}px`;
    byId("scroller").scrollTop = 0;
    draw();
  }
  function draw(moving) {
    const scroller = byId("scroller");
    const first = Math.max(0, Math.floor(scroller.scrollTop / ROW) - SPARE);
    const last = Math.min(order.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / ROW) + SPARE);
    let html = "";
    for (let place = first; place < last; place++) html += row(order[place], place, moving === true);
    byId("rows").innerHTML = html || '<p class="soft" style="padding:12px">No latent matches.</p>';
  }
  const drawnFaces = new Set(); // latents whose pictures are loaded: others wait until the list rests
  const cells = {
    number: (latent) => `<span>${latent}</span>`,
    faces: (latent, moving) => {
      if (moving && !drawnFaces.has(latent)) return '<span class="faces"></span>';
      drawnFaces.add(latent);
      return `<span class="faces">${pictures.faces(latent)}</span>`;
    },
    frequency: (latent) => {
      const part = all.frequency[latent], width = part > 0 ? Math.max(4, Math.min(100, 100 + 25 * Math.log10(part))) : 0;
      return `<span class="fraction">${percent(part)}<i style="--w:${width}%"></i></span>`;
    },
    max: (latent) => `<span>${number(all.max[latent])}</span>`,
    nearest: (latent) => `<span>${all.nearest[latent].toFixed(2)}</span>`,
    moran: (latent) => `<span>${Number.isNaN(all.moran[latent]) ? "–" : fixed(all.moran[latent])}</span>`,
    effective: (latent) => `<span>${all.frequency[latent] ? number(all.effective[latent], 2) : "–"}</span>`,
    fires: (latent) => `<span class="chips">${chips(tokensOf(all.fires, latent).slice(0, 8), found.hit)}</span>`,
    promotes: (latent) => `<span class="chips">${chips(tokensOf(all.promotes, latent).slice(0, 8), found.hit)}</span>`,
  };
  const columns = [...byId("head").children].map((head) => head.dataset.by || head.dataset.cell);
  function row(latent, place, moving) {
    return `<div class="row${latent === shown ? " here" : ""}" data-latent="${latent}" style="top:${place * ROW}px">` +
      columns.map((name) => cells[name](latent, moving)).join("") + "</div>";
  }

  // ---- one latent
  function show(latent, quietly) {
    if (!(latent >= 0 && latent < all.latents)) return;
    requested = latent;
    withLatent(latent, (entry) => {
      if (requested !== latent) return; // another one was requested meanwhile
      shown = latent;
      byId("detail").innerHTML = detail(latent, entry);
      pictures?.paint(byId("detail"));
      if (!quietly && linked() !== latent) history.replaceState(null, "", `#latent=${latent}`);
      bringIntoView(latent);
      draw();
      ring();
    });
  }
  function bringIntoView(latent) {
    const place = order.indexOf(latent), scroller = byId("scroller");
    if (place < 0) return;
    const top = place * ROW;
    if (top < scroller.scrollTop || top + ROW > scroller.scrollTop + scroller.clientHeight)
      scroller.scrollTop = top - scroller.clientHeight / 3;
  }
  function detail(latent, entry) {
    const fired = entry.fired.toLocaleString("en");
    const head = `<header><h2><a href="#latent=${latent}" title="a link to this latent">Latent ${latent}</a></h2>` +
      `<span class="steps"><button data-step="-1" title="the previous one in the list (k)">‹</button><button data-step="1" title="the next one in the list (j)">›</button></span></header>` +
      `<p class="facts"><span>active on <b>${percent(all.frequency[latent])}</b> of ${unit}s (${fired})</span>` +
      (pictures ? `<span>in <b>${percent(entry.images / all.images)}</b> of images (${entry.images.toLocaleString("en")})</span>` : "") + `<span>maximum <b>${number(all.max[latent])}</b></span>` +
      `<span>mean where active <b>${number(entry.mean)}</b></span><span>decoder norm <b>${number(entry.norm)}</b></span>` +
      (all.moran && !Number.isNaN(all.moran[latent]) ? `<span title="mean over the maps of its strongest images">Moran's I <b>${fixed(all.moran[latent])}</b></span>` : "") + "</p>";
    if (!entry.fired) return head + `<p style="margin-top:18px">It is active on none of the ${unit}s read.</p>` + writes(entry) + kin(entry);
    const bars = `<h3>Activations</h3>${histogram(entry.histogram)}`, most = all.max[latent];
    const shownAs = pictures ? (list) => pictures.examples(list, most) : (list) => list.map((e) => example(e, most)).join("");
    const examples = `<h3>Strongest examples</h3>${shownAs(entry.strongest)}` +
      (entry.weaker.length ? `<h3>Weaker examples</h3>${shownAs(entry.weaker)}` : "");
    if (pictures) // pictures first: they say most
      return head + examples + `<div class="twin"><div>${bars}</div>${pictures.spread(entry, latent)}</div>` + kin(entry);
    return head + bars + writes(entry) + examples + kin(entry);
  }
  function writes(entry) {
    if (!entry.up) return "";
    const most = Math.max(...[...entry.up, ...entry.down].map(([, weight]) => Math.abs(weight)), 1e-9);
    const line = ([token, weight]) => `<li><span>${chip(token, found.hit)}</span><i style="--w:${(Math.abs(weight) / most) * 100}%"></i><span>${weight > 0 ? "+" : "−"}${number(Math.abs(weight))}</span></li>`;
    return `<div class="twin"><div><h3>Promotes</h3><ol class="weights">${entry.up.map(line).join("")}</ol></div>` +
      `<div><h3>Suppresses</h3><ol class="weights down">${entry.down.map(line).join("")}</ol></div></div>`;
  }
  function histogram([first, ...counts]) {
    const most = Math.max(...counts), width = 600 / Math.max(counts.length, 6), edge = (bin) => 2 ** ((first + bin) / 4 - 24);
    const bars = counts.map((count, bin) => {
      const height = count ? Math.max((count / most) * 70, 1) : 0;
      return `<rect x="${(bin * width + 0.5).toFixed(1)}" y="${(76 - height).toFixed(1)}" width="${(width - 1).toFixed(1)}" height="${height.toFixed(1)}" rx="1.5"><title>${number(edge(bin))} to ${number(edge(bin + 1))}: ${count.toLocaleString("en")} ${unit}s</title></rect>`;
    });
    let ticks = "", last = -100;
    for (let bin = 0; bin <= counts.length; bin++) {
      const x = bin * width;
      if ((first + bin) % 4 || x - last < 64) continue; // a whole power of two, with room
      ticks += `<path class="axis" d="M${x.toFixed(1)} 76v4"/><text class="soft mid" x="${x.toFixed(1)}" y="96">${number(edge(bin))}</text>`;
      last = x;
    }
    return `<svg class="bars" viewBox="-14 0 640 102" role="img" aria-label="histogram of activations"><path class="axis" d="M0 76.5H600"/>${bars.join("")}${ticks}</svg>`;
  }
  function example([context, position, document_, value, at, tokens, acts, borders, level], highest) {
    const starts = new Map(borders), begin = position - at, end = begin + tokens.length;
    let html = begin > 0 ? '<span class="cut">… </span>' : "";
    tokens.forEach((token, place) => {
      if (starts.has(place)) html += `<span class="border" title="another document begins here">document ${starts.get(place)}</span>`;
      const part = acts[place], text = visible(all.tokens[token]);
      const kind = (part > 0 ? "t" : part < 0 ? "off" : "") + (place === at ? " at" : "");
      const says = part < 0 ? "not counted" : number((part / 1000) * highest);
      html += `<span class="${kind}"${part > 0 ? ` style="--a:${(part / 1000).toFixed(2)}"` : ""} title="${says}, position ${begin + place}">${text}</span>`;
    });
    if (end < all.length) html += '<span class="cut"> …</span>';
    const quantile = level === null ? "" : `<small>${Math.round(level * 100)} %</small>`;
    return `<div class="example"><div class="value">${number(value)}${quantile}</div><p class="text">${html}<span class="source" title="position ${position} of the context">context ${context}, document ${document_}</span></p></div>`;
  }
  function kin(entry) {
    const link = ([latent, cosine]) => `<a href="#latent=${latent}"><b>${latent}</b><span class="soft">${number(cosine, 2)}</span>${pictures ? `<span class="faces">${pictures.faces(latent, 2)}</span>` : `<span>${chips(tokensOf(all.fires, latent).slice(0, 3))}</span>`}</a>`;
    const list = (title, latents) => (latents?.length ? `<h3>${title}</h3><div class="kin">${latents.map(link).join("")}</div>` : "");
    return list("Active together", entry.together) + list("Nearest in the decoder", entry.neighbours);
  }

  // ---- the map of all latents
  function map() {
    const canvas = byId("map"), scale = window.devicePixelRatio || 1, width = canvas.clientWidth, height = 300;
    canvas.width = width * scale; canvas.height = height * scale;
    const pen = canvas.getContext("2d"), style = getComputedStyle(document.body), listed = new Set(order);
    pen.scale(scale, scale);
    const on = [...all.frequency.keys()].filter((latent) => all.frequency[latent] > 0);
    if (!on.length) return;
    const span = (values) => { // no spreading: there may be a hundred thousand
      let low = Infinity, high = -Infinity;
      for (const latent of on) { const v = Math.log10(values[latent]); low = Math.min(low, v); high = Math.max(high, v); }
      return [low - 0.08, high + 0.08];
    };
    const [x0, x1] = span(all.frequency), [y0, y1] = span(all.max);
    const x = (latent) => 52 + ((Math.log10(all.frequency[latent]) - x0) / (x1 - x0)) * (width - 76);
    const y = (latent) => height - 48 - ((Math.log10(all.max[latent]) - y0) / (y1 - y0)) * (height - 76);
    pen.font = "12px system-ui, sans-serif"; pen.fillStyle = style.getPropertyValue("--soft");
    pen.textAlign = "center"; pen.strokeStyle = style.getPropertyValue("--rule");
    const steps = (low, high) => { // round values, at least three of them where there is room
      const at = (factors) => { const values = []; for (let p = Math.floor(low); p <= high; p++) for (const m of factors) { const v = p + Math.log10(m); if (v > low && v < high) values.push([v, m * 10 ** p]); } return values; };
      return [[1], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7]].map(at).find((values) => values.length > 2) ?? at([1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9]);
    };
    for (const [v, at] of steps(x0, x1)) { const px = 52 + ((v - x0) / (x1 - x0)) * (width - 76); pen.fillText(percent(at), px, height - 26); pen.beginPath(); pen.moveTo(px, 10); pen.lineTo(px, height - 44); pen.stroke(); }
    pen.fillText(`fraction of ${unit}s on which it is active`, 52 + (width - 76) / 2, height - 6);
    pen.textAlign = "left"; pen.fillText("largest activation", 52, 14);
    pen.textAlign = "right";
    for (const [v, at] of steps(y0, y1)) { const py = height - 48 - ((v - y0) / (y1 - y0)) * (height - 76); pen.fillText(number(at), 44, py + 4); pen.beginPath(); pen.moveTo(50, py); pen.lineTo(width - 16, py); pen.stroke(); }
    pen.globalAlpha = on.length > 4000 ? 0.35 : 0.7;
    for (const inside of [false, true]) {
      pen.fillStyle = inside ? style.getPropertyValue("--cold") : style.getPropertyValue("--rule");
      for (const latent of on) if (listed.has(latent) === inside) pen.fillRect(x(latent) - 1.5, y(latent) - 1.5, 3, 3);
    }
    pen.globalAlpha = 1;
    drawn = { x, y, points: canvas.cloneNode() };
    drawn.points.getContext("2d").drawImage(canvas, 0, 0);
    ring();
    canvas.onclick = (event) => {
      let best = -1, least = Infinity;
      for (const latent of on) {
        const away = (x(latent) - event.offsetX) ** 2 + (y(latent) - event.offsetY) ** 2;
        if (listed.has(latent) && away < least) [best, least] = [latent, away];
      }
      if (best >= 0) show(best);
    };
  }

  let drawn = null, later = 0; // the points, which stay as they are while another latent is shown
  function ring() {
    if (!drawn) return;
    const canvas = byId("map"), pen = canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(drawn.points, 0, 0);
    if (!(all.frequency[shown] > 0)) return;
    const scale = window.devicePixelRatio || 1;
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.strokeStyle = getComputedStyle(document.body).getPropertyValue("--ink");
    pen.lineWidth = 2; pen.beginPath(); pen.arc(drawn.x(shown), drawn.y(shown), 7, 0, 7); pen.stroke();
  }
  function mapSoon() { // below the list, so it can wait
    clearTimeout(later);
    later = setTimeout(map, 150);
  }

  // ---- input
  const linked = () => { const match = location.hash.match(/^#latent=(\d+)$/); return match ? Number(match[1]) : -1; };
  const step = (by_) => { const place = order.indexOf(shown) + by_; if (order[place] !== undefined) show(order[place]); };
  const again = () => { if (all) { list(); mapSoon(); } };
  let timer = 0;
  byId("search").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(again, 120); });
  byId("where").addEventListener("change", again);
  byId("alive").addEventListener("change", again);
  let rest = 0;
  byId("scroller").addEventListener("scroll", () => {
    if (!all) return;
    draw(true);
    clearTimeout(rest);
    if (pictures) rest = setTimeout(draw, 90);
  });
  byId("rows").addEventListener("click", (event) => { const hit = event.target.closest(".row"); if (hit) show(Number(hit.dataset.latent)); });
  byId("detail").addEventListener("click", (event) => { const button = event.target.closest("[data-step]"); if (button) step(Number(button.dataset.step)); event.target.closest(".pic")?.classList.toggle("large"); });
  byId("head").addEventListener("click", (event) => {
    const next = event.target.closest("button")?.dataset.by;
    if (!next || !all) return;
    [by, rising] = [next, next === by ? !rising : next === "number"];
    again();
  });
  addEventListener("keydown", (event) => {
    if (!all || event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT/.test(event.target.tagName)) return;
    if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
    if (event.key === "/") { event.preventDefault(); byId("search").focus(); }
  });
  addEventListener("hashchange", () => { if (all && linked() >= 0) show(linked()); });
  addEventListener("resize", () => { if (all) { draw(); mapSoon(); } });
  return { index, piece, missing };
})();
