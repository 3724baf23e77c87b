// The interface as plugins in JavaScript and TypeScript see it. Hooks are exported constants of the plugin's file:
// `export const onInbound: OnInbound = { handle(session, message) { … } }`.
//
// What the interface calls a result is a value here, or is thrown. A refusal comes as an error whose `payload` is the
// word (`refusal` of tidegate.js reads it). A hook that throws has failed; what it throws, a string or an Error, goes to
// the log. Numbers are doubles, whole up to 2^53, so take bytes from `random` rather than a number.

/** The few types that interfaces share. */
declare module "tidegate:plugin/types@0.1.0" {
  /**
   * A session, as long as the call runs that received it. Never 0. Another session is reached by its id (`sessions`) or
   * by its user (`users`).
   */
  export type Session = number;

  /** A publication, as long as the call runs that received it. Never 0. */
  export type Publication = number;

  /** The place of an effect in this call's buffer, for the `with-…` options of that effect. Good for this call. */
  export type Effect = number;

  /** What a client or a topic carries. */
  export type Message =
    | { tag: "text"; val: string }
    | { tag: "binary"; val: Uint8Array };

  /** What becomes of a message. */
  export type Verdict =
    /** The next plugin of the chain sees it unchanged. */
    | { tag: "next" }
    /** The next plugin of the chain sees this in its place. */
    | { tag: "replace"; val: Message }
    /** It goes no further, and that is no error. */
    | { tag: "stop" };

  /**
   * Where a topic's history stands. Offsets of one epoch grow by one with each publication. A new epoch means that the
   * history was lost.
   */
  export interface Position {
    epoch: number;
    offset: number;
  }

  /** Why a request was not accepted. */
  export type Refusal =
    /** Not a well-formed name or value. */
    | "invalid"
    /** This plugin has no grant for it. */
    | "denied"
    /** Over a size limit. */
    | "too-large"
    /** Over a number limit: topics of a session, keys, a rate. */
    | "too-many"
    /** Not configured: no history or presence on this topic, no such upstream. */
    | "unsupported"
    /** Not now: the broker or the store does not answer, or too late. May be tried again. */
    | "unavailable";
}

declare module "tidegate:plugin/on-init@0.1.0" {
  /** Get ready to serve. */
  export interface OnInit {
    /**
     * Called on each new instance, before its first event. When the first instance of a generation answers an error,
     * the generation is not used and the former one goes on. No effects, no session. What is prepared here (parsed
     * config, compiled patterns) may stay in the instance's memory; anything that events write belongs into attributes
     * or `kv`.
     */
    handle(): void;
  }
}

declare module "tidegate:plugin/on-authenticate@0.1.0" {
  import type { Session } from "tidegate:plugin/types@0.1.0";

  /** Only `admit` lets the client in. An error, a trap, an overrun or `pass` from every plugin of the chain refuses. */
  export type Decision =
    /**
     * Answer with this HTTP status, 300 to 599; anything else becomes 403. Headers and body: `handshake`. Later plugins
     * are not asked.
     */
    | { tag: "refuse"; val: number }
    /** Leave it to the next plugin of the chain. After the last one: 401. */
    | { tag: "pass" }
    /**
     * Let the client in as this user, or as nobody in particular. Later plugins are not asked. User ids: 1 to 255
     * bytes; any other refuses.
     */
    | { tag: "admit"; val: string | null };

  /** Decide who may come in, before the client's handshake is answered. */
  export interface OnAuthenticate {
    /**
     * `session` is the session to be: its handshake can be read, its response, attributes and expiry can be set. On a
     * refusal only what concerns the response is applied.
     */
    handle(session: Session): Decision;
  }
}

declare module "tidegate:plugin/on-session@0.1.0" {
  import type { Session } from "tidegate:plugin/types@0.1.0";

  export type Closer =
    /** The client said goodbye. */
    | "client"
    /** A plugin asked for it. */
    | "plugin"
    /** The gateway did: heartbeat, limit, expiry, drain, operator. */
    | "gateway"
    /** The connection broke. */
    | "network";

  /** The beginning and the end of a session. */
  export interface OnSession {
    /**
     * The client is connected and can be sent to. Comes before every other event of the session. After an error the
     * session is closed with 1011.
     */
    opened(session: Session): void;

    /**
     * The session is over: the last event. Attributes and subscriptions can be read; what is sent to it is dropped.
     * `code` is a WebSocket close code, also on other transports; 1005 without one, 1006 after a broken connection.
     * Also called where `opened` failed. Not called when the node dies.
     */
    closed(session: Session, code: number, reason: string, by: Closer): void;
  }
}

declare module "tidegate:plugin/on-inbound@0.1.0" {
  import type { Session, Message, Verdict } from "tidegate:plugin/types@0.1.0";

  /** A message from a client. */
  export interface OnInbound {
    /**
     * One message at a time for each session, in order. What passes the last plugin goes to the route's upstream, if it
     * has one.
     */
    handle(session: Session, message: Message): Verdict;
  }
}

declare module "tidegate:plugin/on-publication@0.1.0" {
  import type { Publication, Message, Verdict } from "tidegate:plugin/types@0.1.0";

  /** A publication, once, on the node where it was made and before it leaves it. */
  export interface OnPublication {
    /**
     * Called for each publication on this route's topics, whoever made it. `publication` has no position yet. May read;
     * may not ask for effects. An error refuses the publication.
     */
    handle(publication: Publication, topic: string, message: Message): Verdict;
  }
}

declare module "tidegate:plugin/on-broadcast@0.1.0" {
  import type { Publication, Message, Verdict } from "tidegate:plugin/types@0.1.0";

  /**
   * A publication that has arrived, once on each node and for each route with subscribers, before it is put into their
   * outboxes. It has its position by now, and the answer is the one frame that all of the route's subscribers share:
   * the place where a protocol writes topic and offset around the payload, without a call for each delivery.
   */
  export interface OnBroadcast {
    /**
     * In the order of the topic. `stop`: the route's sessions do not get it. May read; may not ask for effects. An
     * error costs the route's subscribers this publication: their sessions are closed with 1011, since a loss is never
     * silent.
     */
    handle(publication: Publication, topic: string, message: Message): Verdict;
  }
}

declare module "tidegate:plugin/on-outbound@0.1.0" {
  import type { Session, Publication, Message, Verdict } from "tidegate:plugin/types@0.1.0";

  /**
   * A message on its way to one client. Costs a call for each delivery, so only routes that name it (`outbound = true`)
   * have it. The chain is walked backwards, so what comes in through a plugin goes out through it; what a plugin sends
   * itself is seen by the plugins before it only.
   */
  export interface OnOutbound {
    /**
     * `publication` is none for a direct `send`. Effects: those of `session`, except `subscribe` and `send`. After an
     * error the session is closed with 1011, since a loss is never silent.
     */
    handle(session: Session, publication: Publication | null, message: Message): Verdict;
  }
}

declare module "tidegate:plugin/on-subscription@0.1.0" {
  import type { Session, Position } from "tidegate:plugin/types@0.1.0";

  export type Event =
    /** Subscribed; nothing was to be recovered. */
    | "subscribed"
    /** Subscribed; all that was missed is being delivered. */
    | "recovered"
    /** Subscribed, or still is, but something was missed: tell the client to load its state anew. */
    | "gap"
    /** Subscribed from elsewhere (`users`, `sessions`, the admin API). */
    | "added"
    /** Unsubscribed from elsewhere. */
    | "removed";

  /** What became of a session's subscription. */
  export interface OnSubscription {
    /**
     * In the order of the session, before the deliveries that follow from it. `position`: where the topic's history
     * stands, if it keeps one. On a chain without this hook a gap closes the session with 4001.
     */
    handle(session: Session, topic: string, event: Event, position: Position | null): void;
  }
}

declare module "tidegate:plugin/on-timer@0.1.0" {
  import type { Session } from "tidegate:plugin/types@0.1.0";

  /** A timer of this plugin and session has run out. */
  export interface OnTimer {
    handle(session: Session, name: string): void;
  }
}

declare module "tidegate:plugin/on-reply@0.1.0" {
  import type { Session, Message } from "tidegate:plugin/types@0.1.0";

  export interface Response {
    /** The HTTP status. */
    status: number;
    /** Text where the upstream says that it is (its content type is text or JSON) and it is UTF-8. */
    body: Message;
  }

  export type Failure =
    /** No connection, or the breaker is open: the upstream has not seen the request. */
    | "unavailable"
    /** No answer in time: the upstream may have seen the request. */
    | "timeout"
    /** The answer was over the upstream's size limit. */
    | "too-large"
    /** The upstream broke off or did not speak its protocol. */
    | "broken";

  /** The answer to `upstream.request`. */
  export interface OnReply {
    /** `tag` is the one that the request was made with. Not called once the session is over. */
    handle(session: Session, tag: string, reply: { tag: "ok"; val: Response } | { tag: "err"; val: Failure }): void;
  }
}

declare module "tidegate:plugin/on-presence@0.1.0" {
  export type Event = "joined" | "left";

  /**
   * Who came to a topic and who left: once in the cluster for each change, also after a node has died. In order for
   * each topic.
   */
  export interface OnPresence {
    /**
     * Called for the topics that the route claims (its `topics` in the configuration). `sessions-of-user`: how many of
     * the user's sessions are on the topic now, for protocols that tell of users rather than sessions: 1 and joined is
     * the first, 0 and left the last. Sessions without a user are counted one by one. Effects: `topics`, `users`,
     * `sessions`.
     */
    handle(
      topic: string,
      event: Event,
      sessionId: string,
      user: string | null,
      info: string,
      sessionsOfUser: number,
    ): void;
  }
}

/**
 * The HTTP request that a session comes from. All of it can be read in `on-authenticate` and in `on-session.opened`;
 * afterwards the headers only that the route's `keep_headers` names. Headers, cookies among them, are seen by plugins
 * that have a grant for them (`headers`); to others they are not there.
 */
declare module "tidegate:plugin/handshake@0.1.0" {
  import type { Session } from "tidegate:plugin/types@0.1.0";

  /** What a client certificate says of its subject. */
  export interface Certificate {
    /** As RFC 4514 writes it, the last part first: `CN=ann,O=Example`. Commas and the like within values are escaped. */
    subject: string;
    /** The alternative names: DNS names in lower case, URIs, email addresses, IP addresses. */
    dnsNames: string[];
    uris: string[];
    emails: string[];
    addresses: string[];
    /** `spiffe://DOMAIN/PATH`, if it is the certificate's only URI and well formed. */
    spiffeId: string | null;
    /** Until when it is valid: Unix time in seconds. */
    notAfter: bigint;
  }

  export function method(session: Session): string;

  /** Percent-encoded, as it came, without the query. */
  export function path(session: Session): string;

  /** A parameter of the route's pattern, percent-decoded. */
  export function parameter(session: Session, name: string): string | null;

  /** The first value of a query parameter, decoded. */
  export function query(session: Session, name: string): string | null;

  /** The query as it came, without the question mark; empty if there is none. */
  export function rawQuery(session: Session): string;

  /** A header's values, joined as RFC 9110 section 5.3 says. Any case finds it. Bytes outside UTF-8 become U+FFFD. */
  export function header(session: Session, name: string): string | null;

  /** All headers that the plugin has a grant for, names in lower case, in order. */
  export function headers(session: Session): [string, string][];

  /** A cookie's value, as it came. */
  export function cookie(session: Session, name: string): string | null;

  /** The client's IP address, after the gateway's rules for trusted proxies. */
  export function peerAddress(session: Session): string;

  /** The verified client certificate, DER. */
  export function clientCertificate(session: Session): Uint8Array | null;

  /** The same certificate, read. None also if it cannot be read. */
  export function certificateFacts(session: Session): Certificate | null;

  /** The subprotocols that the client offers, by its preference. */
  export function subprotocols(session: Session): string[];

  /** Effect, `on-authenticate` only: speak this one of the offered subprotocols. `invalid`: it was not offered. */
  export function selectSubprotocol(session: Session, name: string): void;

  /** Effect, `on-authenticate` only: add a header to the response, whichever it is. */
  export function addHeader(session: Session, name: string, value: string): void;

  /** Effect, `on-authenticate` only: the body of a refusal, up to 16 KiB. */
  export function setBody(session: Session, contentType: string, body: Uint8Array): void;
}

/**
 * The session that a hook was called for. Reads see what this event has asked for so far, by earlier plugins of the
 * chain too.
 */
declare module "tidegate:plugin/session@0.1.0" {
  import type { Session, Effect, Message, Position } from "tidegate:plugin/types@0.1.0";

  /** Names the session cluster-wide: 1 to 64 bytes of letters, digits, `-` and `_`. Not a secret, not an authority. */
  export function id(session: Session): string;

  export function user(session: Session): string | null;

  /** The route's name. */
  export function route(session: Session): string;

  /** "websocket", "sse", "long-poll"; more may come. */
  export function transport(session: Session): string;

  /** The subprotocol that was selected. */
  export function subprotocol(session: Session): string | null;

  /** Attributes are shared by the plugins of the chain and live as long as the session. */
  export function attribute(session: Session, name: string): string | null;

  export function isSubscribed(session: Session, topic: string): boolean;

  /** The topics that the session is subscribed to. */
  export function topics(session: Session): string[];

  /** Effect: a message to this client, through its outbox. */
  export function send(session: Session, message: Message): Effect;

  /**
   * A message that is sent instead of the rest when an effect of this event is refused as it is applied, and forgotten
   * otherwise. Several are sent in order. The route's policy for refused effects does not apply then.
   */
  export function sendIfRefused(session: Session, message: Message): void;

  /** Effect: who the client is, for protocols that sign in after the handshake. None signs out. */
  export function setUser(session: Session, user: string | null): void;

  /** Effect: names up to 64 bytes, values up to 4 KiB, 16 KiB and 64 names in a session. None removes. */
  export function setAttribute(session: Session, name: string, value: string | null): void;

  /** Effect: close with 3000 (unauthorized) at this Unix time in milliseconds, unless moved before. None: never. */
  export function setExpiry(session: Session, at: number | null): void;

  /**
   * Effect: subscribe to a topic. Nothing that is published once it is applied is missed, and its first delivery comes
   * after whatever this event sends: the acknowledgement is first on the wire. A topic that is subscribed already stays
   * so, with the new options. Refusals: `invalid`, `denied`, `too-many`.
   */
  export function subscribe(session: Session, topic: string): Effect;

  /** Of a `subscribe`: be seen in the topic's presence, with this information, up to 1 KiB. */
  export function withPresence(effect: Effect, info: string): void;

  /**
   * Of a `subscribe`: first deliver what the topic's history holds after `since`, then go on without a gap. Where the
   * history does not reach back that far, `on-subscription` is told of the gap; without that hook the session is closed
   * with 4001.
   */
  export function withRecovery(effect: Effect, since: Position): void;

  /** Effect. Nothing happens to a topic that is not subscribed. */
  export function unsubscribe(session: Session, topic: string): void;

  /**
   * Effect: flush the outbox, then close. Codes 1000, 1001, 1003, 1007 to 1009, 1011 to 1014 and 3000 to 4999; the
   * reason is cut after 123 bytes.
   */
  export function close(session: Session, code: number, reason: string): void;

  /**
   * Effect: call this plugin's `on-timer` once, after this many milliseconds. Names are the plugin's own, up to 64
   * bytes; setting one again moves it. 16 timers in a session.
   */
  export function setTimer(session: Session, name: string, after: number): void;

  /** Effect. Nothing happens to a timer that is not set. */
  export function cancelTimer(session: Session, name: string): void;

  /** Which of a user's sessions stay where there are too many. */
  export type Keep = "newest" | "oldest";

  /**
   * Effect: of the sessions of this user that have asked for it, on all nodes, so many stay (1 to 100). The others are
   * closed: with 4002 where a newer one takes their place, with 4003 where they came too late. Ask in `opened`, or behind
   * `setUser`. Refusals: `invalid`, also without a user.
   */
  export function limitSessions(session: Session, sessions: number, keep: Keep): void;
}

/** Publish. Topic names: 1 to 255 bytes of UTF-8 without control characters. */
declare module "tidegate:plugin/topics@0.1.0" {
  import type { Session, Effect, Message } from "tidegate:plugin/types@0.1.0";

  /**
   * Effect: publish to every subscriber in the cluster. History is as configured for the topic. Refusals: `invalid`,
   * `denied`, `too-large`.
   */
  export function publish(topic: string, message: Message): Effect;

  /** Of a `publish`: do not deliver to this session. Up to 64 in a publication. */
  export function withExclude(effect: Effect, session: Session): void;

  /** Of a `publish`: do not deliver to the session of this id. */
  export function withExcludeId(effect: Effect, id: string): void;

  /**
   * Of a `publish`: keep the topic's last `size` publications for `ttl` milliseconds; 0 keeps none. At most 10,000 and
   * seven days.
   */
  export function withHistory(effect: Effect, size: number, ttl: number): void;

  /**
   * Of a `publish`: a second publication to the topic under this key, up to 64 bytes, within five minutes counts as
   * done and is not made.
   */
  export function withIdempotencyKey(effect: Effect, key: string): void;

  /** Of a `publish`: outboxes that keep the latest by key drop what waits under the same key, up to 64 bytes. */
  export function withKey(effect: Effect, key: string): void;

  /**
   * Of a `publish`: metadata that travels with it, for hooks, upstreams and traces; clients do not see it. Up to 16
   * entries and 4 KiB.
   */
  export function withMetadata(effect: Effect, name: string, value: string): void;
}

/** A publication that a hook was called for or that was read from a history. */
declare module "tidegate:plugin/publication@0.1.0" {
  import type { Publication, Message, Position } from "tidegate:plugin/types@0.1.0";

  export function topic(publication: Publication): string;

  export function content(publication: Publication): Message;

  /** None where the topic keeps no history, and before the broker has accepted it. */
  export function historyPosition(publication: Publication): Position | null;

  /** When it was made: Unix time in milliseconds. */
  export function time(publication: Publication): number;

  export function key(publication: Publication): string | null;

  export function metadata(publication: Publication, name: string): string | null;
}

/** Every session of a user, anywhere in the cluster. */
declare module "tidegate:plugin/users@0.1.0" {
  import type { Effect, Message } from "tidegate:plugin/types@0.1.0";

  /** Effect. No refusal, and nothing happens, when the user is not there. */
  export function send(user: string, message: Message): Effect;

  /** Effect: the sessions that are there now. */
  export function subscribe(user: string, topic: string): Effect;

  /** Effect. */
  export function unsubscribe(user: string, topic: string): Effect;

  /** Effect: close all of the user's sessions. Codes and reason as in `session.close`. */
  export function disconnect(user: string, code: number, reason: string): Effect;
}

/** One session anywhere in the cluster, by its id. */
declare module "tidegate:plugin/sessions@0.1.0" {
  import type { Effect, Message } from "tidegate:plugin/types@0.1.0";

  /** Effect. No refusal, and nothing happens, when the session is not there. */
  export function send(id: string, message: Message): Effect;

  /** Effect. */
  export function subscribe(id: string, topic: string): Effect;

  /** Effect. */
  export function unsubscribe(id: string, topic: string): Effect;

  /** Effect. Codes and reason as in `session.close`. */
  export function disconnect(id: string, code: number, reason: string): Effect;
}

/** The gateway's backends, by their configured names. Only in hooks of a session; plain HTTP goes by `wasi:http`. */
declare module "tidegate:plugin/upstream@0.1.0" {
  import type { Session, Effect, Message } from "tidegate:plugin/types@0.1.0";

  /**
   * Effect: hand the message over, in the order of the session; nobody waits for an answer. Refused when it is applied
   * if the upstream's queue is full or its breaker is open. Refusals: `denied`, `unsupported`.
   */
  export function forward(session: Session, upstream: string, message: Message): Effect;

  /** Effect: as `forward`, and the answer comes to this plugin's `on-reply` with the same tag, up to 255 bytes. */
  export function request(session: Session, upstream: string, tag: string, message: Message): Effect;

  /** Of either: a header that goes with it. Up to 32, and 8 KiB in all. */
  export function withHeader(effect: Effect, name: string, value: string): void;

  /** Of a `request`: milliseconds, up to the upstream's own limit. */
  export function withTimeout(effect: Effect, after: number): void;
}

/** What a topic has kept. */
declare module "tidegate:plugin/history@0.1.0" {
  import type { Publication, Position } from "tidegate:plugin/types@0.1.0";

  export interface Page {
    /** Oldest first. */
    publications: Publication[];
    /** Where the topic stood at the moment of reading: the place to subscribe from (`session.with-recovery`). */
    position: Position;
    /** False: something between `since` and the first of these is lost. */
    complete: boolean;
  }

  /** Up to `limit` publications (at most 1,000): the first after `since`, or the last of all. */
  export function read(topic: string, since: Position | null, limit: number): Page;
}

/** Who is on a topic. An accepted subscription shows at the latest when the next event of its session begins. */
declare module "tidegate:plugin/presence@0.1.0" {
  export interface Member {
    sessionId: string;
    user: string | null;
    /** As given to `session.with-presence`. */
    info: string;
  }

  export interface Counts {
    sessions: number;
    users: number;
  }

  export function count(topic: string): Counts;

  /** Up to `limit` members (at most 1,000), in no order. */
  export function members(topic: string, limit: number): Member[];

  export function hasUser(topic: string, user: string): boolean;
}

/**
 * A store shared by the plugin's instances on every node. These act at once: they are no effects, and what is written
 * stays when the event fails. Keys up to 255 bytes, values up to 64 KiB. `ttl` in milliseconds, 0 for ever.
 */
declare module "tidegate:plugin/kv@0.1.0" {
  export function get(key: string): Uint8Array | null;

  export function set(key: string, value: Uint8Array, ttl: number): void;

  function remove(key: string): void;
  export { remove as delete };

  /**
   * The new value. A missing key counts as 0 and gets the `ttl`; one that is there keeps its own. `invalid` where the
   * value is not a decimal number.
   */
  export function increment(key: string, by: number, ttl: number): number;

  /** Set if the value is `expected` (none: if the key is missing). False: it was something else. */
  export function compareAndSet(key: string, expected: Uint8Array | null, value: Uint8Array, ttl: number): boolean;
}

/**
 * Log lines under the plugin's name, with generation, hook, route and session beside them. They are written even when
 * the event fails.
 */
declare module "tidegate:plugin/log@0.1.0" {
  export type Level = "trace" | "debug" | "info" | "warn" | "error";

  /** Whether a line of this level would be written. */
  export function enabled(level: Level): boolean;

  /** Up to 8 KiB; the rest is cut. */
  export function write(level: Level, message: string): void;

  export function writeFields(level: Level, message: string, fields: [string, string][]): void;
}

/**
 * Metrics of the plugin's own, counted even when the event fails. A series is a Prometheus name with labels as in the
 * text format, `moves_total{game="chess"}`; the gateway adds the plugin's name as a label and `plugin_` in
 * front. Up to 1,000 series; what comes after is counted as dropped.
 */
declare module "tidegate:plugin/metrics@0.1.0" {
  /** Add to a counter. */
  export function count(series: string, by: number): void;

  /** Set a gauge. */
  export function gauge(series: string, value: number): void;

  /** Observe a value for a histogram. */
  export function observe(series: string, value: number): void;
}

/** The plugin's table in the gateway's configuration. A change makes a new generation. */
declare module "tidegate:plugin/config@0.1.0" {
  /** The value at a dotted path: a string as it is, anything else as JSON. None: not there. */
  export function get(path: string): string | null;

  /** The whole table as a JSON object. */
  export function json(): string;
}

/** Time, which a replay may set. */
declare module "tidegate:plugin/clock@0.1.0" {
  /** Unix time in milliseconds. */
  export function now(): number;

  /** Nanoseconds since some point in the past; never goes back. */
  export function monotonic(): number;
}

/** Randomness fit for secrets, which a replay may repeat. */
declare module "tidegate:plugin/random@0.1.0" {
  export function number(): number;

  /** Up to 64 KiB. */
  export function bytes(length: number): Uint8Array;
}
