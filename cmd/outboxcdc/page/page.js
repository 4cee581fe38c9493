"use strict";

const $ = (id) => document.getElementById(id);
const every = 2000; // milliseconds

// What a state means to somebody who was woken up by it.
const kinds = { streaming: "good", standby: "good", starting: "wait", retrying: "bad", draining: "wait", stopped: "wait", failed: "bad" };
const sentences = {
  streaming: "Events flow.", standby: "Another instance streams; this one takes over when it ends.",
  starting: "Connecting and comparing positions.", draining: "Stopping: waiting for the last acks.", stopped: "Stopped in order.",
};

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return `${i === 0 ? n : n.toFixed(n < 10 ? 1 : 0)} ${units[i]}`;
}

const number = (n) => n.toLocaleString("en", { maximumFractionDigits: n < 10 ? 1 : 0 });

function span(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

const since = (then, now) => span(Math.max(0, (new Date(now) - new Date(then)) / 1000));

// element makes a node; text never becomes markup.
function element(name, text, attributes = {}) {
  const e = document.createElement(name);
  e.textContent = text;
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  return e;
}

function showState(live) {
  const slow = live.state === "streaming" && !live.ready;
  const troubles = live.troubles ?? [];
  $("state").className = `card ${slow || troubles.length ? "bad" : kinds[live.state] ?? "wait"}`;
  $("badge").textContent = slow ? "no acks" : live.state;
  const reason = live.reason.startsWith(`${live.state}: `) ? live.reason.slice(live.state.length + 2) : live.reason;
  if (troubles.length) $("sentence").textContent = live.ready ? "Events flow, but:" : "Events do not flow:";
  else $("sentence").textContent = reason && reason !== live.state ? reason : sentences[live.state] ?? "";
  $("troubles").replaceChildren(...troubles.flatMap((t) => [element("dt", t.problem), element("dd", t.fix)]));
  document.title = `${live.state} · ${live.slot} · outboxcdc`;
}

function showChain(positions) {
  $("chain").replaceChildren(...positions.map((place, i) => {
    const item = element("li", "");
    if (i > 0) {
      const gap = element("span", bytes(place.behind), { class: place.behind > 0 ? "gap busy" : "gap" });
      gap.setAttribute("aria-label", `${bytes(place.behind)} between ${positions[i - 1].of} and ${place.of}`);
      item.append(gap);
    }
    const stop = element("span", "", { class: "stop" });
    stop.append(element("b", place.of), element("code", place.bytes ? place.lsn : "not known yet"));
    item.append(stop);
    return item;
  }));
}

const svg = (name) => document.createElementNS("http://www.w3.org/2000/svg", name);

function chart(id, samples, value, say) {
  const picture = $(id), width = 450, height = 60;
  picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const values = samples.map(value), top = Math.max(...values, 0) || 1;
  picture.setAttribute("aria-label", values.length ? `last quarter of an hour: now ${say(values.at(-1))}, at most ${say(Math.max(...values))}` : "no samples yet");
  const points = values.map((v, i) => `${(width - (values.length - 1 - i)).toFixed(0)},${(height - 2 - (v / top) * (height - 6)).toFixed(1)}`);
  const floor = svg("line");
  floor.setAttribute("x2", width);
  floor.setAttribute("y1", height - 1);
  floor.setAttribute("y2", height - 1);
  const area = svg("path"), line = svg("path");
  area.setAttribute("class", "area");
  if (points.length) {
    line.setAttribute("d", `M${points.join("L")}`);
    area.setAttribute("d", `M${width - points.length + 1},${height}L${points.join("L")}L${width},${height}Z`);
  }
  picture.replaceChildren(floor, area, line);
}

function showServer(live) {
  const rows = [
    ["log kept for the slot", live.looked_at ? bytes(live.retained_bytes) : "not known yet"],
    ["left before the slot is lost", live.looked_at === null ? "not known yet" : live.safe_bytes === null ? "no limit is set" : bytes(live.safe_bytes), live.safe_bytes !== null && live.safe_bytes < live.retained_bytes],
    ["latest commit sent", live.last_commit ? `${since(live.last_commit, live.now)} ago` : "none yet"],
    ["rows since the start", number(live.rows)],
    ["sessions", number(live.sessions)],
    ...(live.parked_rows ? [["rows parked", `${number(live.parked_rows)}, of ${number(live.parked_aggregates)} aggregates`, true]] : []),
    ...(live.skipped_rows ? [["rows skipped", number(live.skipped_rows), true]] : []),
    ["runs for", since(live.began, live.now)],
    ["version", live.version],
  ];
  $("server").replaceChildren(...rows.flatMap(([name, value, bad]) => [element("dt", name), element("dd", value, bad ? { class: "bad" } : {})]));
}

function showErrors(errors) {
  $("errors").replaceChildren(...errors.length ? errors.map((error) => {
    const item = element("li", ""), at = new Date(error.at);
    item.append(element("time", at.toLocaleTimeString(), { datetime: error.at, title: at.toLocaleString() }), element("span", error.text));
    return item;
  }) : [element("li", "None since the process began.", { class: "quiet" })]);
}

function show(live) {
  $("slot").textContent = live.slot;
  showState(live);
  showChain(live.positions);
  const last = live.samples.at(-1);
  $("rate").textContent = last ? number(last.rows_per_second) : "–";
  $("behind").textContent = last ? bytes(last.behind_bytes) : "–";
  $("ack").textContent = span(live.waiting_seconds);
  chart("rate-chart", live.samples, (s) => s.rows_per_second, number);
  chart("behind-chart", live.samples, (s) => s.behind_bytes, bytes);
  chart("ack-chart", live.samples, (s) => s.waiting_seconds, span);
  showServer(live);
  showErrors(live.errors ?? []);
  $("age").textContent = `as of ${new Date(live.now).toLocaleTimeString()}`;
}

let answered = Date.now();

async function ask() {
  try {
    const response = await fetch("status", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!response.ok) throw new Error(response.status);
    const live = await response.json();
    live.samples ??= [];
    show(live);
    answered = Date.now();
  } catch {
    $("state").className = "card bad";
    $("badge").textContent = "no answer";
    $("sentence").textContent = `The process has not answered for ${span((Date.now() - answered) / 1000)}. What is below is from then.`;
  }
  setTimeout(ask, every);
}

ask();
