// A chat page for the gateway: signs in with a token, shows one room at a time, and speaks the chat plugin's protocol.
//
// A link of the form `/#token=…&room=lobby` signs in at once. The token stays in this tab's session storage: a reload
// goes on where it was, and another tab can be somebody else.

import { Connection } from "./connection.js";
import { $, Log, drawMembers, drawRooms, drawTyping, paintAvatar } from "./view.js";

/** How long a typing notice holds, and how often one is sent while typing. */
const TYPING_HOLDS = 4000;
const TYPING_EVERY = 2500;
/** A page hidden this long may have slept through the loss of its connection without noticing. */
const SLEPT = 60_000;
const ANSWER_WITHIN = 10_000;

const kept = {
  get: (name) => sessionStorage.getItem(`tidegate.${name}`),
  set: (name, value) => sessionStorage.setItem(`tidegate.${name}`, value),
  drop: (name) => sessionStorage.removeItem(`tidegate.${name}`),
};

let token = null;
let room = "lobby";
let rooms = [];
let me = null;
let members = new Set();
let target = null;
let connection = null;
let logs = new Map();
let log = null;
let unread = 0;
let welcomes = 0;
let drawsWait = 0;
const typing = new Map();
/** One's own direct messages that the gateway has not answered yet. */
let unanswered = [];

// ---- Signing in and out ---------------------------------------------------------------------------------------------

function readLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  if (link.has("room")) room = link.get("room").trim() || room;
  if (!link.has("token")) return false;
  token = link.get("token");
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}

function enter() {
  kept.set("token", token);
  logs = new Map();
  rooms = JSON.parse(kept.get("rooms") ?? "[]");
  me = null;
  $("login").hidden = true;
  $("login-error").hidden = true;
  $("chat").hidden = false;
  goTo(room);
}

function askForToken(text) {
  connection?.close();
  connection = null;
  token = null;
  kept.drop("token");
  showState({ state: "closed" });
  $("chat").hidden = true;
  $("login").hidden = false;
  $("room").value = room;
  $("token").value = "";
  $("login-error").textContent = text ?? "";
  $("login-error").hidden = !text;
  document.title = "Tidegate chat";
  $("token").focus();
}

// ---- Rooms ----------------------------------------------------------------------------------------------------------

function goTo(name) {
  room = name;
  kept.set("room", room);
  openMenu(false);
  writeTo(null);

  $("room-name").textContent = room;
  if (!logs.has(room)) logs.set(room, new Log(writeTo));
  log = logs.get(room);
  log.show();
  members = new Set();
  nobodyTypes();
  unanswered = [];
  welcomes = 0;
  draw();

  connection?.close();
  connection = new Connection({
    address: `/chat/${encodeURIComponent(room)}?token=${encodeURIComponent(token)}`,
    hear,
    change: showState,
  });
  connection.open();
}

function draw() {
  const known = [...new Set([...rooms, room])].sort((a, b) => a.localeCompare(b));
  drawRooms(known, room, (name) => name !== room && goTo(name));
  drawPeople();
  drawTitle();
  $("me").textContent = me ?? "";
  paintAvatar($("me-avatar"), me ?? "");
}

function drawPeople() {
  drawMembers(members, me, target, (name) => {
    openMenu(false);
    writeTo(name === target ? null : name);
  });
}

function drawTitle() {
  document.title = `${unread ? `(${unread}) ` : ""}#${room} · Tidegate chat`;
}

function stopsTyping(user) {
  clearTimeout(typing.get(user));
  if (typing.delete(user)) drawTyping([...typing.keys()]);
}

function nobodyTypes() {
  for (const user of [...typing.keys()]) stopsTyping(user);
}

// ---- What the gateway says ------------------------------------------------------------------------------------------

const heard = {
  welcome({ user, members: here, history = [] }) {
    me = user;
    members = new Set(here.map(nameOf));
    members.add(me);
    nobodyTypes();
    welcomes += 1;
    if (!rooms.includes(room)) rooms.push(room);
    kept.set("rooms", JSON.stringify(rooms));
    log.quietly(() => {
      for (const past of history) log.message({ ...past, me });
      if (welcomes > 1) log.note("Connected again");
    });
    draw();
  },
  message({ id, user, text, at }) {
    stopsTyping(user);
    if (log.message({ id, user, text, at, me }) && user !== me) countUnread();
  },
  direct({ user, to, text, at }) {
    const waiting = user === me ? unanswered.findIndex((sent) => to === undefined || sent.to === to) : -1;
    if (waiting >= 0) {
      const [sent] = unanswered.splice(waiting, 1);
      sent.element.querySelector(".text").textContent = text;
      return;
    }
    log.direct({ user, to, text, at, me });
    if (user !== me) countUnread();
  },
  joined({ user }) {
    if (members.has(user)) return;
    members.add(user);
    log.note(`${user} joined`, "joined");
    drawPeople();
  },
  left({ user }) {
    stopsTyping(user);
    if (user === me || !members.delete(user)) return;
    log.note(`${user} left`, "left");
    drawPeople();
  },
  typing({ user }) {
    if (user === me) return;
    clearTimeout(typing.get(user));
    typing.set(user, setTimeout(() => stopsTyping(user), TYPING_HOLDS));
    drawTyping([...typing.keys()]);
  },
  members({ members: here }) {
    members = new Set(here.map(nameOf));
    drawPeople();
  },
  error({ code, text }) {
    log.note(text ?? `The gateway answered with an error: ${code}`, "failed");
  },
};

const nameOf = (member) => (typeof member === "string" ? member : member.user);

let lastHeard = 0;
function hear(message) {
  lastHeard = Date.now();
  // What this page does not know is from a newer plugin, and no reason to stop.
  if (Object.hasOwn(heard, message?.type)) heard[message.type](message);
}

function countUnread() {
  if (!document.hidden) return;
  unread += 1;
  drawTitle();
}

// ---- The state of the connection ------------------------------------------------------------------------------------

function showState({ state, text, login, retryAt }) {
  const status = $("status");
  if (state === "connected") document.body.dataset.connects = String(Number(document.body.dataset.connects) + 1);
  if (status.dataset.state !== state) {
    status.dataset.state = state;
    status.textContent = state;
  }
  if (login) return askForToken(text);

  $("send").disabled = state !== "connected";
  if (state !== "connected") nobodyTypes();
  clearInterval(drawsWait);
  $("banner-wait").textContent = "";
  // An attempt that is under way leaves the reason for it on the page.
  if (state === "connecting" && !text) return;
  $("banner").hidden = !text;
  $("banner-text").textContent = text ?? "";
  if (retryAt) {
    const drawWait = () => {
      const seconds = Math.ceil((retryAt - Date.now()) / 1000);
      $("banner-wait").textContent = seconds > 0 ? `Trying again in ${seconds} s` : "Trying again …";
    };
    drawWait();
    drawsWait = setInterval(drawWait, 500);
  }
}

function connectNow() {
  if (connection && !connection.isOpen) connection.open();
}

addEventListener("online", () => connection?.isWaiting && connectNow());

let hiddenSince = 0;
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    hiddenSince = Date.now();
    return;
  }
  unread = 0;
  if (connection === null) return;
  drawTitle();
  if (connection.isWaiting) return connectNow();
  if (Date.now() - hiddenSince < SLEPT || !connection.send({ type: "who" })) return;
  const asked = Date.now();
  const about = connection;
  setTimeout(() => lastHeard < asked && about === connection && connection.open(), ANSWER_WITHIN);
});

// ---- Writing --------------------------------------------------------------------------------------------------------

/** To one person, or with null to the room. */
function writeTo(user) {
  target = user;
  $("direct").hidden = user === null;
  $("direct-to").textContent = user ?? "";
  $("say").classList.toggle("direct", user !== null);
  $("text").placeholder = user === null ? `Message #${room}` : `Message ${user}, directly`;
  for (const item of $("members").children) {
    item.querySelector("button")?.setAttribute("aria-pressed", String(item.dataset.user === user));
  }
  // On a touch screen the focus would bring up the keyboard, which only a choice of the reader should do.
  if (user !== null || !matchMedia("(pointer: coarse)").matches) $("text").focus();
}

function send() {
  const box = $("text");
  const text = box.value.trim();
  if (!text || !connection?.isOpen) return;
  if (target === null) {
    connection.send({ type: "say", text });
  } else {
    connection.send({ type: "direct", to: target, text });
    const element = log.direct({ user: me, to: target, text, at: Date.now(), me });
    unanswered = [...unanswered, { to: target, element }].slice(-20);
  }
  box.value = "";
  lastTyping = 0;
  fit();
  box.focus();
}

function fit() {
  const box = $("text");
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight + 2, 160)}px`;
}

let lastTyping = 0;
$("text").addEventListener("input", () => {
  fit();
  // A direct message is nobody else's business, and neither is that it is being written.
  if (target !== null || !$("text").value || Date.now() - lastTyping < TYPING_EVERY) return;
  lastTyping = Date.now();
  connection?.send({ type: "typing" });
});
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("direct-end").addEventListener("click", () => writeTo(null));

// ---- The rest of the page -------------------------------------------------------------------------------------------

function openMenu(open) {
  $("menu").setAttribute("aria-expanded", String(open));
  if ($("side").classList.toggle("open", open)) $("rooms").querySelector("button")?.focus();
  $("shade").hidden = !open;
}

/** `.` and `..` would climb out of the path that names the room. */
function roomIn(box) {
  const name = box.value.trim();
  box.setCustomValidity(name === "." || name === ".." || name === "" ? "Choose another name for the room." : "");
  return box.reportValidity() ? name : null;
}

for (const id of ["room", "join-room"]) $(id).addEventListener("input", () => $(id).setCustomValidity(""));
$("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = roomIn($("room"));
  if (name === null) return;
  token = $("token").value.trim();
  room = name;
  enter();
});
$("join-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = roomIn($("join-room"));
  if (name === null) return;
  $("join-room").value = "";
  if (name !== room) goTo(name);
});
$("leave").addEventListener("click", () => {
  kept.drop("rooms");
  askForToken();
});
$("again").addEventListener("click", connectNow);
$("menu").addEventListener("click", () => openMenu(!$("side").classList.contains("open")));
$("shade").addEventListener("click", () => openMenu(false));
$("newer").addEventListener("click", () => log.toEnd());
$("messages").addEventListener("scroll", () => log?.follow());
new ResizeObserver(() => log?.follow(true)).observe($("messages"));
addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if ($("side").classList.contains("open")) {
    openMenu(false);
    $("menu").focus();
  } else if (target !== null) writeTo(null);
});
addEventListener("hashchange", () => {
  if (readLink()) enter();
});

room = kept.get("room") ?? room;
token = kept.get("token");
readLink();
if (token) enter();
else askForToken();
