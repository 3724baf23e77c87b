// The session that a hook was called for, with the request that it comes from.
import { RESULT, accepted, at, fieldsAt, refusal, someBytesAt, someStringAt, stringAt, stringsAt, utf8 } from "./abi";
import * as handshake from "./raw/handshake";
import * as raw from "./raw/session";
import { Accepted, Field, Message, Position, Refusal } from "./types";

/** Which of a user's sessions stay where there are too many. */
export enum Keep {
  Newest,
  Oldest,
}

/** What a client certificate says of its subject. */
export class CertificateFacts {
  constructor(
    /** As RFC 4514 writes it, the last part first: `CN=ann,O=Example`. Commas and the like within values are escaped. */
    readonly subject: string,
    /** DNS names in lower case. */
    readonly dnsNames: string[],
    readonly uris: string[],
    readonly emails: string[],
    /** IP addresses. */
    readonly addresses: string[],
    /** `spiffe://DOMAIN/PATH`, if it is the certificate's only URI and well formed. */
    readonly spiffeId: string | null,
    /** Until when it is valid: Unix time in seconds. */
    readonly notAfter: u64,
  ) {}
}

/** Good as long as the call runs that received it. */
export class Session {
  constructor(readonly handle: u64) {}

  /** Names the session cluster-wide. Not a secret, not an authority. */
  get id(): string {
    raw.id(this.handle, RESULT);
    return stringAt(RESULT);
  }

  get user(): string | null {
    raw.user(this.handle, RESULT);
    return someStringAt(RESULT);
  }

  /** The route's name. */
  get route(): string {
    raw.route(this.handle, RESULT);
    return stringAt(RESULT);
  }

  /** "websocket", "sse", "long-poll"; more may come. */
  get transport(): string {
    raw.transport(this.handle, RESULT);
    return stringAt(RESULT);
  }

  /** The subprotocol that was selected. */
  get subprotocol(): string | null {
    raw.subprotocol(this.handle, RESULT);
    return someStringAt(RESULT);
  }

  /** Attributes are shared by the plugins of the chain and live as long as the session. */
  attribute(name: string): string | null {
    const key = utf8(name);
    raw.attribute(this.handle, at(key), key.byteLength, RESULT);
    return someStringAt(RESULT);
  }

  isSubscribed(topic: string): bool {
    const name = utf8(topic);
    return raw.isSubscribed(this.handle, at(name), name.byteLength) != 0;
  }

  /** The topics that the session is subscribed to. */
  get topics(): string[] {
    raw.topics(this.handle, RESULT);
    return stringsAt(RESULT);
  }

  /** Effect: a message to this client, through its outbox. */
  send(message: Message): u32 {
    return raw.send(this.handle, message.kind, at(message.bytes), message.length);
  }

  /** Effect: a text to this client. */
  sendText(text: string): u32 {
    const bytes = utf8(text);
    return raw.send(this.handle, 0, at(bytes), bytes.byteLength);
  }

  /** Sent instead of the rest when an effect of this event is refused as it is applied, and forgotten otherwise. */
  sendIfRefused(message: Message): void {
    raw.sendIfRefused(this.handle, message.kind, at(message.bytes), message.length);
  }

  /** Effect: who the client is; null signs out. */
  setUser(user: string | null): Refusal {
    if (user === null) {
      raw.setUser(this.handle, 0, 0, 0, RESULT);
    } else {
      const name = utf8(user);
      raw.setUser(this.handle, 1, at(name), name.byteLength, RESULT);
    }
    return refusal();
  }

  /** Effect; null removes. */
  setAttribute(name: string, value: string | null): Refusal {
    const key = utf8(name);
    if (value === null) {
      raw.setAttribute(this.handle, at(key), key.byteLength, 0, 0, 0, RESULT);
    } else {
      const bytes = utf8(value);
      raw.setAttribute(this.handle, at(key), key.byteLength, 1, at(bytes), bytes.byteLength, RESULT);
    }
    return refusal();
  }

  /** Effect: close with 3000 at this Unix time in milliseconds. */
  setExpiry(time: u64): void {
    raw.setExpiry(this.handle, 1, time);
  }

  /** Effect: never close for its age. */
  removeExpiry(): void {
    raw.setExpiry(this.handle, 0, 0);
  }

  /** Effect: subscribe to a topic. Its first delivery comes after whatever this event sends. */
  subscribe(topic: string): Subscribed {
    const name = utf8(topic);
    raw.subscribe(this.handle, at(name), name.byteLength, RESULT);
    const answer = accepted();
    return new Subscribed(answer.refusal, answer.effect);
  }

  /** Effect. Nothing happens to a topic that is not subscribed. */
  unsubscribe(topic: string): void {
    const name = utf8(topic);
    raw.unsubscribe(this.handle, at(name), name.byteLength);
  }

  /** Effect: flush the outbox, then close. */
  close(code: u16, reason: string): void {
    const why = utf8(reason);
    raw.close(this.handle, code, at(why), why.byteLength);
  }

  /** Effect: call this plugin's `timer` once, after this many milliseconds. Setting one again moves it. */
  setTimer(name: string, after: u64): Refusal {
    const key = utf8(name);
    raw.setTimer(this.handle, at(key), key.byteLength, after, RESULT);
    return refusal();
  }

  /** Effect. Nothing happens to a timer that is not set. */
  cancelTimer(name: string): void {
    const key = utf8(name);
    raw.cancelTimer(this.handle, at(key), key.byteLength);
  }

  /**
   * Effect: of the sessions of this user that have asked for it, on all nodes, so many stay, 1 to 100. The others are closed:
   * with 4002 where a newer one takes their place, with 4003 where they came too late. Refusal: `Invalid`, also without a
   * user.
   */
  limitSessions(sessions: u32, keep: Keep): Refusal {
    raw.limitSessions(this.handle, sessions, keep, RESULT);
    return refusal();
  }

  // The handshake: all of it in `authenticate` and `opened`, later only the headers that the route keeps.

  get method(): string {
    handshake.method(this.handle, RESULT);
    return stringAt(RESULT);
  }

  /** Percent-encoded, as it came, without the query. */
  get path(): string {
    handshake.path(this.handle, RESULT);
    return stringAt(RESULT);
  }

  /** A parameter of the route's pattern, percent-decoded. */
  parameter(name: string): string | null {
    const key = utf8(name);
    handshake.parameter(this.handle, at(key), key.byteLength, RESULT);
    return someStringAt(RESULT);
  }

  /** The first value of a query parameter, decoded. */
  query(name: string): string | null {
    const key = utf8(name);
    handshake.query(this.handle, at(key), key.byteLength, RESULT);
    return someStringAt(RESULT);
  }

  /** The query as it came, without the question mark. */
  get rawQuery(): string {
    handshake.rawQuery(this.handle, RESULT);
    return stringAt(RESULT);
  }

  /** Needs a grant, as cookies do. */
  header(name: string): string | null {
    const key = utf8(name);
    handshake.header(this.handle, at(key), key.byteLength, RESULT);
    return someStringAt(RESULT);
  }

  /** All headers that the plugin has a grant for. */
  get headers(): Field[] {
    handshake.headers(this.handle, RESULT);
    return fieldsAt(RESULT);
  }

  cookie(name: string): string | null {
    const key = utf8(name);
    handshake.cookie(this.handle, at(key), key.byteLength, RESULT);
    return someStringAt(RESULT);
  }

  /** The client's IP address. */
  get peerAddress(): string {
    handshake.peerAddress(this.handle, RESULT);
    return stringAt(RESULT);
  }

  /** The verified client certificate, DER. */
  get clientCertificate(): ArrayBuffer | null {
    handshake.clientCertificate(this.handle, RESULT);
    return someBytesAt(RESULT);
  }

  /** What the verified client certificate says of its subject. */
  get certificateFacts(): CertificateFacts | null {
    handshake.certificateFacts(this.handle, RESULT);
    if (!load<u8>(RESULT)) return null;
    return new CertificateFacts(
      stringAt(RESULT + 8), stringsAt(RESULT + 16), stringsAt(RESULT + 24), stringsAt(RESULT + 32),
      stringsAt(RESULT + 40), someStringAt(RESULT + 48), load<u64>(RESULT, 64),
    );
  }

  /** The subprotocols that the client offers, by its preference. */
  get subprotocols(): string[] {
    handshake.subprotocols(this.handle, RESULT);
    return stringsAt(RESULT);
  }

  /** Effect, in `authenticate` only. */
  selectSubprotocol(name: string): Refusal {
    const key = utf8(name);
    handshake.selectSubprotocol(this.handle, at(key), key.byteLength, RESULT);
    return refusal();
  }

  /** Effect, in `authenticate` only: add a header to the response. */
  addHeader(name: string, value: string): Refusal {
    const key = utf8(name), bytes = utf8(value);
    handshake.addHeader(this.handle, at(key), key.byteLength, at(bytes), bytes.byteLength, RESULT);
    return refusal();
  }

  /** Effect, in `authenticate` only: the body of a refusal. */
  setBody(contentType: string, body: string): void {
    const type = utf8(contentType), bytes = utf8(body);
    handshake.setBody(this.handle, at(type), type.byteLength, at(bytes), bytes.byteLength);
  }
}

/** A subscription that was asked for, for its options. */
export class Subscribed extends Accepted {
  /** Be seen in the topic's presence, with this information. */
  withPresence(info: string): Refusal {
    if (this.refused) return this.refusal;
    const bytes = utf8(info);
    raw.withPresence(this.effect, at(bytes), bytes.byteLength, RESULT);
    return refusal();
  }

  /** First deliver what the topic's history holds after this position. */
  withRecovery(since: Position): void {
    if (!this.refused) raw.withRecovery(this.effect, since.epoch, since.offset);
  }
}
