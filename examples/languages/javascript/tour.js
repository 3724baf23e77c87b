// A tour of the plugin interface, in JavaScript. The folders beside this one have the same plugin in other languages.
import * as config from "tidegate:plugin/config@0.1.0";
import * as handshake from "tidegate:plugin/handshake@0.1.0";
import * as log from "tidegate:plugin/log@0.1.0";
import * as session from "tidegate:plugin/session@0.1.0";
import * as topics from "tidegate:plugin/topics@0.1.0";
import { admit, refusal, refuse, stop, text, utf8 } from "../../../sdk/js/tidegate.js";

let greeting = "welcome";
// The longest message, in bytes.
let longest = 200;

export const onInit = {
  handle() {
    greeting = config.get("greeting") ?? greeting;
    const number = config.get("longest") ?? "200";
    if (!isNumber(number)) throw `longest = \`${number}\`: not a number of bytes`;
    longest = Number(number);
    log.write("info", "ready");
  },
};

export const onAuthenticate = {
  handle(s) {
    const name = handshake.query(s, "name");
    if (name == null) return turnAway(s, 401, "who are you? add ?name=YOU to the address\n");
    if (!/^[A-Za-z0-9_-]{1,32}$/.test(name)) return turnAway(s, 403, "a name is 1 to 32 letters, digits, - and _\n");
    handshake.addHeader(s, "x-tour-name", name);
    return admit(name);
  },
};

export const onSession = {
  opened(s) {
    const name = session.user(s) ?? "";
    log.writeFields("info", "came", [["name", name]]);
    sendText(s, `${greeting}, ${name}`);
  },

  closed(s, code, reason, by) {
    log.writeFields("info", "went", [["code", String(code)]]);
  },
};

export const onInbound = {
  handle(s, message) {
    if (message.tag === "binary") {
      session.close(s, 1003, "text only");
    } else if (utf8(message.val).length > longest) {
      sendText(s, `at most ${longest} bytes`);
    } else {
      answer(s, ...split(message.val));
    }
    return stop;
  },
};

export const onTimer = {
  handle(s, name) {
    const text = session.attribute(s, name) ?? "";
    session.setAttribute(s, name, null);
    sendText(s, `remember: ${text}`);
  },
};

function answer(s, command, rest) {
  switch (command) {
    case "echo":
      return sendText(s, rest);
    case "join":
      return join(s, rest);
    case "leave":
      return leave(s, rest);
    case "say":
      return say(s, ...split(rest));
    case "topics":
      return sendText(s, `topics: ${session.topics(s).join(", ")}`);
    case "count":
      return count(s);
    case "remind":
      return remind(s, ...split(rest));
    case "fail":
      sendText(s, "never sent");
      throw "asked to fail";
    case "crash":
      sendText(s, "never sent");
      throw new Error("asked to crash");
    default:
      sendText(s, `there is no \`${command}\`; try: echo join leave say topics count remind`);
  }
}

// `join TOPIC`: subscribe, seen by the others. The answer comes before the first delivery.
function join(s, topic) {
  try {
    session.withPresence(session.subscribe(s, topic), "on tour");
  } catch (error) {
    return sendText(s, `${refusal(error) === "denied" ? "may not" : "cannot"} join ${topic}`);
  }
  sendText(s, `joined ${topic}`);
}

// `leave TOPIC`
function leave(s, topic) {
  if (!session.isSubscribed(s, topic)) return sendText(s, `not on ${topic}`);
  session.unsubscribe(s, topic);
  sendText(s, `left ${topic}`);
}

// `say TOPIC TEXT`: publish to everyone else. The answer tells the truth: if the publication is refused later, the
// client gets the other one.
function say(s, topic, words) {
  const name = session.user(s) ?? "";
  let effect;
  try {
    effect = topics.publish(topic, text(`${name}: ${words}`));
  } catch (error) {
    return sendText(s, `${refusal(error) === "denied" ? "may not" : "cannot"} say to ${topic}`);
  }
  topics.withExclude(effect, s);
  topics.withMetadata(effect, "from", name);
  session.sendIfRefused(s, text("not said, try again"));
  sendText(s, "said");
}

// `count`: an attribute remembers something for one session; the plugin's memory would not.
function count(s) {
  const now = String(Number(session.attribute(s, "count") ?? 0) + 1);
  session.setAttribute(s, "count", now);
  sendText(s, now);
}

// `remind MILLISECONDS TEXT`
function remind(s, after, words) {
  if (!isNumber(after)) return sendText(s, "remind MILLISECONDS TEXT");
  session.setAttribute(s, "reminder", words);
  session.setTimer(s, "reminder", Number(after));
  sendText(s, "will remind");
}

function turnAway(s, status, why) {
  handshake.setBody(s, "text/plain", utf8(why));
  return refuse(status);
}

function sendText(s, val) {
  session.send(s, text(val));
}

// The first word, and what comes after the space.
function split(line) {
  const space = line.indexOf(" ");
  return space < 0 ? [line, ""] : [line.slice(0, space), line.slice(space + 1)];
}

function isNumber(digits) {
  return /^\d{1,10}$/.test(digits) && Number(digits) < 2 ** 32;
}
