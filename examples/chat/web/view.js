// Draws the conversation: messages, notes, members, rooms. Text from others enters the page as text, never as markup.

const MOST_MESSAGES = 500;
/** Messages of one person within this time stand together under one name. */
const TOGETHER = 5 * 60_000;

export const $ = (id) => document.getElementById(id);

/** An element with a class, text and children. */
function element(tag, className, ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

/** A colour of its own for each name, the same on every page. */
function tint(target, name) {
  let hash = 7;
  for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)) % 360;
  target.style.setProperty("--hue", String(hash));
}

export function paintAvatar(target, name) {
  target.textContent = [...name].slice(0, 2).join("").toUpperCase();
  tint(target, name);
}

function avatar(name) {
  const made = element("span", "avatar");
  made.setAttribute("aria-hidden", "true");
  paintAvatar(made, name);
  return made;
}

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const complete = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

function timeOf(at) {
  const made = element("time", "", clock.format(at));
  made.dateTime = new Date(at).toISOString();
  made.title = complete.format(at);
  return made;
}

/** The messages of one room, shown in `#messages` while it is the room in view. */
export class Log {
  #box = $("messages");
  #newer = $("newer");
  #nodes = [];
  #seen = new Set();
  #reply;
  /** Whether the newest message is in view; a box that shrinks, as under a banner, then keeps it there. */
  #atEnd = true;

  /** `reply(user)` is called when somebody wants to answer a direct message. */
  constructor(reply) {
    this.#reply = reply;
  }

  /** After the reader scrolled, or the box changed its size. */
  follow(resized) {
    if (resized && this.#atEnd) return this.toEnd();
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    this.#atEnd = scrollHeight - scrollTop - clientHeight < 60;
    if (this.#atEnd) this.#newer.hidden = true;
  }

  show() {
    this.#box.replaceChildren(...this.#nodes);
    this.toEnd();
  }

  toEnd() {
    this.#box.scrollTop = this.#box.scrollHeight;
    this.#atEnd = true;
    this.#newer.hidden = true;
  }

  /** Draws many at once, without reading all of them aloud. */
  quietly(draw) {
    this.#box.setAttribute("aria-busy", "true");
    draw();
    this.toEnd();
    this.#box.removeAttribute("aria-busy");
  }

  /** False: it was there already, as after a reconnect whose history overlaps. */
  message({ id, user, text, at, me }) {
    const key = id === undefined ? `${user} ${at} ${text}` : String(id);
    if (this.#seen.has(key)) return false;
    this.#seen.add(key);
    this.#say({ user, text, at, own: user === me });
    return true;
  }

  /** A direct message: `to` is set on one's own. Returns its element. */
  direct({ user, to, text, at, me }) {
    const own = user === me;
    const mark = own ? (to ? `direct, to ${to}` : "direct") : "direct, to you";
    const made = this.#say({ user, text, at, own, mark });
    if (!own) {
      const answer = element("button", "reply", "Reply");
      answer.type = "button";
      answer.setAttribute("aria-label", `Reply to ${user} directly`);
      answer.addEventListener("click", () => this.#reply(user));
      made.querySelector(".by").append(answer);
    }
    return made;
  }

  /** Something that happened, between the messages. */
  note(text, kind = "") {
    const at = Date.now();
    const made = element("div", `note ${kind}`, element("span", "", text), " ", timeOf(at));
    this.#add(made, at);
  }

  #say({ user, text, at, own, mark }) {
    const last = this.#nodes.at(-1);
    const time = Number.isFinite(at) ? at : Date.now();
    const together =
      last?.dataset.user === user && last.dataset.mark === (mark ?? "") && time - Number(last.dataset.at) < TOGETHER &&
      sameDay(time, Number(last.dataset.at));

    const made = element("div", "message");
    made.classList.toggle("own", own);
    made.classList.toggle("direct", mark !== undefined);
    made.classList.toggle("together", together);
    made.dataset.user = user;
    made.dataset.mark = mark ?? "";
    made.dataset.testid = mark === undefined ? "message" : "direct-message";

    const name = element("strong", "name", user);
    name.dir = "auto";
    tint(name, user);
    const by = element("div", "by", name);
    if (own) name.append(element("span", "aside", " (you)"));
    if (mark) by.append(element("span", "mark", mark));
    by.append(timeOf(time));

    const words = element("p", "text", text);
    words.dir = "auto";
    made.append(avatar(user), element("div", "body", by, words));
    this.#add(made, time, own);
    return made;
  }

  #add(made, at, own = false) {
    made.dataset.at = String(at);
    const last = this.#nodes.at(-1);
    const fresh = [made];
    const before = last ? Number(last.dataset.at) : Date.now();
    if (!sameDay(before, at)) {
      const day = element("div", "day", element("span", "", calendar.format(at)));
      day.dataset.at = String(at);
      fresh.unshift(day);
    }

    this.#nodes.push(...fresh);
    this.#box.append(...fresh);
    while (this.#nodes.length > MOST_MESSAGES) this.#nodes.shift().remove();

    if (this.#atEnd || own) this.toEnd();
    else if (made.classList.contains("message")) this.#newer.hidden = false;
  }
}

function sameDay(one, other) {
  return new Date(one).toDateString() === new Date(other).toDateString();
}

/** The list of people: oneself first, each once, whatever the number of their tabs. */
export function drawMembers(members, me, target, choose) {
  const names = [...members].sort((a, b) => (b === me) - (a === me) || a.localeCompare(b));
  const held = document.activeElement?.closest("#members li")?.dataset.user;
  $("members").replaceChildren(
    ...names.map((name) => {
      const item = element("li");
      item.dataset.user = name;
      const label = element("span", "name", name);
      label.dir = "auto";
      if (name === me) {
        item.append(element("span", "person", avatar(name), label, element("span", "aside", "you")));
        return item;
      }
      const button = element("button", "person", avatar(name), label);
      button.type = "button";
      button.title = `Write to ${name} directly`;
      button.setAttribute("aria-pressed", String(name === target));
      button.addEventListener("click", () => choose(name));
      item.append(button);
      return item;
    }),
  );
  $("member-count").textContent = names.length ? String(names.length) : "";
  // Drawing anew must not take the keyboard away from whoever walks the list.
  if (held) $("members").querySelector(`li[data-user="${CSS.escape(held)}"] button`)?.focus();
}

export function drawRooms(rooms, current, choose) {
  $("rooms").replaceChildren(
    ...rooms.map((name) => {
      const button = element("button", "room", element("span", "hash", "#"), name);
      button.type = "button";
      if (name === current) button.setAttribute("aria-current", "page");
      button.addEventListener("click", () => choose(name));
      return element("li", "", button);
    }),
  );
}

/** “alice is typing”, for as many as do. */
export function drawTyping(names) {
  const line = $("typing");
  const few = ["", `${names[0]} is typing`, `${names.join(" and ")} are typing`];
  const who = few[names.length] ?? "Several people are typing";
  if (line.dataset.who === who) return;
  line.dataset.who = who;
  line.replaceChildren(...(who ? [element("span", "dots", element("i"), element("i"), element("i")), who] : []));
}
