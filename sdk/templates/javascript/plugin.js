// Everyone on the route hears what anyone says, louder.
/// <reference path="sdk/js/tidegate.d.ts" />
import * as config from "tidegate:plugin/config@0.1.0";
import { close, send, subscribe } from "tidegate:plugin/session@0.1.0";
import { publish } from "tidegate:plugin/topics@0.1.0";
import { stop, text } from "./sdk/js/tidegate.js";

let greeting = "welcome";

export const onInit = {
  handle() {
    greeting = config.get("greeting") ?? greeting;
  },
};

export const onSession = {
  opened(session) {
    subscribe(session, "square");
    send(session, text(greeting));
  },

  closed() {},
};

export const onInbound = {
  handle(session, message) {
    if (message.tag === "text") publish("square", text(message.val.toUpperCase()));
    else close(session, 1003, "text only");
    return stop;
  },
};
