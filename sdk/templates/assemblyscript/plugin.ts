// Everyone on the route hears what anyone says, louder.
import { Message, Session, Verdict, config, topics } from "tidegate";

let greeting = "welcome";

export function init(): string | null {
  const text = config.get("greeting");
  if (text !== null) greeting = text;
  return null;
}

export function opened(session: Session): string | null {
  if (session.subscribe("square").refused) return "no grant to subscribe to the square";
  session.sendText(greeting);
  return null;
}

export function inbound(session: Session, message: Message): Verdict {
  if (!message.isText) session.close(1003, "text only");
  else if (topics.publish("square", Message.text(message.text.toUpperCase())).refused) {
    return Verdict.fail("no grant to publish on the square");
  }
  return Verdict.stop();
}
