// The interface `session` as the canonical ABI flattens it: sessions, publications and times are u64, strings and
// lists an address and a length; `result` is where the answer is put.

@external("tidegate:plugin/session@0.1.0", "id")
export declare function id(session: u64, result: usize): void;

@external("tidegate:plugin/session@0.1.0", "user")
export declare function user(session: u64, result: usize): void;

@external("tidegate:plugin/session@0.1.0", "route")
export declare function route(session: u64, result: usize): void;

@external("tidegate:plugin/session@0.1.0", "transport")
export declare function transport(session: u64, result: usize): void;

@external("tidegate:plugin/session@0.1.0", "subprotocol")
export declare function subprotocol(session: u64, result: usize): void;

@external("tidegate:plugin/session@0.1.0", "attribute")
export declare function attribute(session: u64, name: usize, nameLength: usize, result: usize): void;

@external("tidegate:plugin/session@0.1.0", "is-subscribed")
export declare function isSubscribed(session: u64, topic: usize, topicLength: usize): i32;

@external("tidegate:plugin/session@0.1.0", "topics")
export declare function topics(session: u64, result: usize): void;

@external("tidegate:plugin/session@0.1.0", "send")
export declare function send(session: u64, kind: i32, data: usize, length: usize): u32;

@external("tidegate:plugin/session@0.1.0", "send-if-refused")
export declare function sendIfRefused(session: u64, kind: i32, data: usize, length: usize): void;

@external("tidegate:plugin/session@0.1.0", "set-user")
export declare function setUser(session: u64, some: i32, user: usize, userLength: usize, result: usize): void;

@external("tidegate:plugin/session@0.1.0", "set-attribute")
export declare function setAttribute(
  session: u64, name: usize, nameLength: usize, some: i32, value: usize, valueLength: usize, result: usize,
): void;

@external("tidegate:plugin/session@0.1.0", "set-expiry")
export declare function setExpiry(session: u64, some: i32, at: u64): void;

@external("tidegate:plugin/session@0.1.0", "subscribe")
export declare function subscribe(session: u64, topic: usize, topicLength: usize, result: usize): void;

@external("tidegate:plugin/session@0.1.0", "with-presence")
export declare function withPresence(effect: u32, info: usize, infoLength: usize, result: usize): void;

@external("tidegate:plugin/session@0.1.0", "with-recovery")
export declare function withRecovery(effect: u32, epoch: u64, offset: u64): void;

@external("tidegate:plugin/session@0.1.0", "unsubscribe")
export declare function unsubscribe(session: u64, topic: usize, topicLength: usize): void;

@external("tidegate:plugin/session@0.1.0", "close")
export declare function close(session: u64, code: i32, reason: usize, reasonLength: usize): void;

@external("tidegate:plugin/session@0.1.0", "set-timer")
export declare function setTimer(session: u64, name: usize, nameLength: usize, after: u64, result: usize): void;

@external("tidegate:plugin/session@0.1.0", "cancel-timer")
export declare function cancelTimer(session: u64, name: usize, nameLength: usize): void;

@external("tidegate:plugin/session@0.1.0", "limit-sessions")
export declare function limitSessions(session: u64, sessions: u32, keep: i32, result: usize): void;
