// Publish to topics; needs the grant `publish`.
import { RESULT, accepted, at, refusal, utf8 } from "./abi";
import * as raw from "./raw/topics";
import { Session } from "./session";
import { Accepted, Message, Refusal } from "./types";

/** Effect: publish to every subscriber in the cluster. */
export function publish(topic: string, message: Message): Published {
  const name = utf8(topic);
  raw.publish(at(name), name.byteLength, message.kind, at(message.bytes), message.length, RESULT);
  const answer = accepted();
  return new Published(answer.refusal, answer.effect);
}

/** A publication that was asked for, for its options. */
export class Published extends Accepted {
  /** Do not deliver to this session. */
  exclude(session: Session): void {
    if (!this.refused) raw.withExclude(this.effect, session.handle);
  }

  /** Do not deliver to the session of this id. */
  excludeId(id: string): void {
    if (this.refused) return;
    const bytes = utf8(id);
    raw.withExcludeId(this.effect, at(bytes), bytes.byteLength);
  }

  /** Keep the topic's last `size` publications for `ttl` milliseconds; 0 keeps none. */
  history(size: u32, ttl: u64): void {
    if (!this.refused) raw.withHistory(this.effect, size, ttl);
  }

  /** A second publication under this key within five minutes counts as done and is not made. */
  idempotencyKey(key: string): Refusal {
    if (this.refused) return this.refusal;
    const bytes = utf8(key);
    raw.withIdempotencyKey(this.effect, at(bytes), bytes.byteLength, RESULT);
    return refusal();
  }

  /** Outboxes that keep the latest by key drop what waits under the same key. */
  key(key: string): Refusal {
    if (this.refused) return this.refusal;
    const bytes = utf8(key);
    raw.withKey(this.effect, at(bytes), bytes.byteLength, RESULT);
    return refusal();
  }

  /** Metadata for hooks, upstreams and traces; clients do not see it. */
  metadata(name: string, value: string): Refusal {
    if (this.refused) return this.refusal;
    const key = utf8(name), bytes = utf8(value);
    raw.withMetadata(this.effect, at(key), key.byteLength, at(bytes), bytes.byteLength, RESULT);
    return refusal();
  }
}
