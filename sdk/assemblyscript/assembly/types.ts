// What plugin and gateway exchange.

/** Why a request was not accepted, `None` if it was. That effect or option does not happen; the event goes on. */
export enum Refusal {
  None = -1,
  /** Not a well-formed name or value. */
  Invalid = 0,
  /** This plugin has no grant for it. */
  Denied = 1,
  /** Over a size limit. */
  TooLarge = 2,
  /** Over a number limit. */
  TooMany = 3,
  /** Not configured. */
  Unsupported = 4,
  /** Not now; may be tried again. */
  Unavailable = 5,
}

/** An effect that was asked for. */
export class Accepted {
  constructor(
    readonly refusal: Refusal,
    /** Its place in this call's buffer; 0 if it was refused. */
    readonly effect: u32,
  ) {}

  get refused(): bool {
    return this.refusal != Refusal.None;
  }
}

/** What a client or a topic carries. */
export class Message {
  constructor(
    readonly isText: bool,
    /** As it is on the wire: a text is in UTF-8. */
    readonly bytes: ArrayBuffer,
  ) {}

  static text(text: string): Message {
    return new Message(true, String.UTF8.encode(text, false, String.UTF8.ErrorMode.REPLACE));
  }

  static binary(bytes: ArrayBuffer): Message {
    return new Message(false, bytes);
  }

  /** A text, decoded at each call. */
  get text(): string {
    return String.UTF8.decode(this.bytes);
  }

  /** In bytes. */
  get length(): i32 {
    return this.bytes.byteLength;
  }

  get kind(): i32 {
    return this.isText ? 0 : 1;
  }
}

/** What becomes of a message. */
export class Verdict {
  constructor(
    readonly tag: i32,
    readonly message: Message | null = null,
    readonly error: string | null = null,
  ) {}

  /** The next plugin of the chain sees it unchanged. */
  static next(): Verdict {
    return new Verdict(0);
  }

  /** The next plugin of the chain sees this in its place. */
  static replace(message: Message): Verdict {
    return new Verdict(1, message);
  }

  /** It goes no further, and that is no error. */
  static stop(): Verdict {
    return new Verdict(2);
  }

  /** The event has failed: none of its effects is applied. The sentence is for the log. */
  static fail(error: string): Verdict {
    return new Verdict(-1, null, error);
  }
}

/** Who may come in. */
export class Decision {
  constructor(
    readonly tag: i32,
    readonly status: u16 = 0,
    readonly user: string | null = null,
    readonly error: string | null = null,
  ) {}

  /** Answer with this HTTP status, 300 to 599. */
  static refuse(status: u16): Decision {
    return new Decision(0, status);
  }

  /** Leave it to the next plugin of the chain. */
  static pass(): Decision {
    return new Decision(1);
  }

  /** Let the client in as this user, or (null) as nobody in particular. */
  static admit(user: string | null): Decision {
    return new Decision(2, 0, user);
  }

  /** Nobody comes in. The sentence is for the log. */
  static fail(error: string): Decision {
    return new Decision(-1, 0, null, error);
  }
}

/** Where a topic's history stands. */
export class Position {
  constructor(
    readonly epoch: u64,
    readonly offset: u64,
  ) {}
}

/** A name and a value: a header, or what stands beside a log line. */
export class Field {
  constructor(
    readonly name: string,
    readonly value: string,
  ) {}
}

/** Who ended a session. */
export enum Closer {
  Client,
  Plugin,
  Gateway,
  Network,
}
